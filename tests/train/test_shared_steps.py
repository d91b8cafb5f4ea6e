"""Steps 1 and 2 with shared codes equal a naive implementation on raw synthetic videos."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from distributed_avel.method.mil import mil_pool
from distributed_avel.method.pseudo_labels import filter_scores
from distributed_avel.method.windows import score_synthetic
from distributed_avel.models import BaseModel, model_class, model_names
from distributed_avel.tasks import Localization
from distributed_avel.train.batches import Batch, worker_batches
from distributed_avel.train.objectives import Objective
from distributed_avel.train.predict import segment_codes
from tests.models.examples import small_model
from tests.train.examples import MASK_WT, WINDOWS, objective, plan, training_set

NAMES = [name for name in model_names() if model_class(name).task == "localization"]
STARTS, WINDOW = (0, 2, 4, 6), 4
CPU = torch.device("cpu")


def one_batch(dtype: torch.dtype, **kinds) -> Batch:
    videos = training_set(9, **kinds)
    return next(worker_batches(videos, plan(batch_size=5), rank=0, num_workers=1, dtype=dtype))


def paste(batch: Batch, video: int, start: int) -> tuple[Tensor, Tensor]:
    """Return the raw features of one synthetic video, as a batch of one."""
    assert batch.partner_B is not None
    partner = batch.num_videos + int(batch.partner_B[video])
    audio, visual = batch.audio_NTD[partner].clone(), batch.visual_NTRD[partner].clone()
    for segment in range(start, start + WINDOW):
        audio[segment] = batch.audio_NTD[video, segment]
        visual[segment] = batch.visual_NTRD[video, segment]
    return audio[None], visual[None]


def g(pooled_K: Tensor, targets_K: Tensor) -> Tensor:
    """The paper's loss of one bag."""
    prob_K, targets_K = pooled_K.softmax(0), targets_K.to(pooled_K.dtype)
    return -(targets_K * logsigmoid(prob_K) + (1 - targets_K) * logsigmoid(-prob_K)).mean()


def naive_losses(model: BaseModel, batch: Batch) -> dict[str, Tensor]:
    """L_MIL, L_A and L_LR, one video at a time, the whole model for each synthetic video."""
    losses: dict[str, list[Tensor]] = {"mil": [], "auxiliary": [], "refinement": []}
    for video in range(batch.num_videos):
        scores_TK = model(batch.audio_NTD[[video]], batch.visual_NTRD[[video]])[0]
        losses["mil"].append(g(scores_TK.max(0).values, batch.labels_BK[video]))
        if batch.union_BK is not None:
            synthetic = [model(*paste(batch, video, s))[0].max(0).values for s in STARTS]
            pooled_K = torch.stack(synthetic).max(0).values
            losses["auxiliary"].append(g(pooled_K, batch.union_BK[video]))
        if batch.window_labels_BWK is not None:
            each = [
                g(scores_TK[s : s + WINDOW].max(0).values, batch.window_labels_BWK[video, number])
                for number, s in enumerate(STARTS)
            ]
            losses["refinement"].append(torch.stack(each).mean())
    return {name: torch.stack(values) for name, values in losses.items() if values}


def gradients(model: torch.nn.Module, losses: dict[str, Tensor]) -> Tensor:
    """Return all gradients of all losses in one vector."""
    total = torch.stack([loss_B.mean() for loss_B in losses.values()]).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, list(model.parameters()))])


def without_dropout(step: Objective) -> Objective:
    """Turn dropout off; in train mode, two forward passes would draw different masks."""
    return step.eval()


def largest_difference(step: Objective, batch: Batch) -> tuple[float, float]:
    """Return the largest absolute difference of losses and relative difference of gradients."""
    ours, naive = step(batch), naive_losses(step.model, batch)
    assert ours.keys() == naive.keys()
    losses = max(float((ours[name] - naive[name]).abs().max().detach()) for name in naive)
    expected = gradients(step.model, naive)
    apart = (gradients(step.model, ours) - expected).abs().max() / expected.abs().max()
    return losses, float(apart)


# Step 1 (and 3)


@pytest.mark.parametrize("kinds", [{}, {"partners": None, "window_labels": True}])
@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_are_exact_in_float64(name, kinds):
    step = without_dropout(objective(torch.float64, name=name))
    if step.model.pooling != "max":
        step = Objective(step.model, WINDOWS, Localization("max", "soft_margin"))

    losses, grads = largest_difference(step, one_batch(torch.float64, **kinds))

    assert losses <= 1e-12
    assert grads <= 1e-12


def test_losses_and_gradients_differ_by_rounding_in_float32():
    losses, grads = largest_difference(objective(torch.float32), one_batch(torch.float32))

    assert losses <= 1e-6
    assert grads <= 1e-5


def test_the_comparison_detects_a_wrong_partner():
    batch = one_batch(torch.float64, partners="disjoint")
    assert batch.partner_B is not None
    mistaken = replace(batch, partner_B=batch.partner_B.roll(1))
    step = objective(torch.float64)

    ours, naive = step(mistaken)["auxiliary"], naive_losses(step.model, batch)["auxiliary"]

    assert float((ours - naive).abs().max().detach()) > 1e-8


def shifted_windows(num_segments):
    return np.roll(WINDOWS(num_segments), 1, axis=1)


def test_the_comparison_detects_shifted_windows():
    step, batch = objective(torch.float64), one_batch(torch.float64)
    step = Objective(step.model, shifted_windows, Localization(step.model.pooling, "soft_margin"))

    losses, grads = largest_difference(step, batch)

    assert losses > 1e-8
    assert grads > 1e-5


# Step 2


def z_hat_both_ways(dtype: torch.dtype, name: str = "ave") -> tuple[np.ndarray, np.ndarray]:
    """Window probabilities (B, W, K): shared and naive."""
    model, batch = small_model(name, dtype), one_batch(dtype, partners="disjoint")
    audio, visual = batch.audio_NTD.numpy(), batch.visual_NTRD.numpy()
    assert batch.partner_B is not None
    with torch.no_grad():
        codes = segment_codes(model, audio, visual, device=CPU, batch_size=2)
        own, partners = codes[: batch.num_videos], codes[batch.num_videos :][batch.partner_B]
        scores_BWTK = score_synthetic(model, own, partners, torch.from_numpy(MASK_WT))
        shared = mil_pool(scores_BWTK, "max").softmax(-1)
        naive = torch.stack(
            [
                torch.stack([model(*paste(batch, v, s))[0].amax(0).softmax(0) for s in STARTS])
                for v in range(batch.num_videos)
            ]
        )
    return shared.numpy(), naive.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_window_probabilities_are_exact_in_float64(name):
    shared, naive = z_hat_both_ways(torch.float64, name)

    assert np.abs(shared - naive).max() <= 1e-12


def test_z_hat_differs_by_rounding_in_float32():
    labels_BK = one_batch(torch.float32, partners="disjoint").labels_BK.numpy()

    shared, naive = (filter_scores(z, labels_BK) for z in z_hat_both_ways(torch.float32))

    assert np.abs(shared - naive).max() <= 1e-6
    assert shared.max() > 0.1


def test_windows_of_one_video_have_different_probabilities():
    """Otherwise the comparisons above would be meaningless."""
    shared, _ = z_hat_both_ways(torch.float64)

    assert np.abs(shared[:, 0] - shared[:, 1]).max() > 1e-3
