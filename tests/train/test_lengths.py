"""Videos of different lengths: no padding reaches a model, a loss or a metric."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from distributed_avel.method.losses import auxiliary_loss, mil_loss, refinement_loss
from distributed_avel.method.partners import PartnerPool
from distributed_avel.method.windows import resampled, score_synthetic
from distributed_avel.models import model_names
from distributed_avel.train.batches import Batch, TrainingSet, worker_batches
from distributed_avel.train.predict import predict_codes
from tests.models.examples import small_model
from tests.train.examples import WINDOWS, objective, plan, training_set

LENGTHS = np.array([10, 3, 7, 10, 1, 2, 7, 5])
PADDING = 1e3
"""Value of the padding, which would be visible in every loss."""


def videos_of_different_lengths(*, partners: bool, window_labels: bool) -> TrainingSet:
    whole = training_set(len(LENGTHS), partners=None, window_labels=window_labels)
    audio_VTD, visual_VTRD = whole.audio_VTD.copy(), whole.visual_VTRD.copy()
    for video, length in enumerate(LENGTHS):
        audio_VTD[video, length:] = PADDING
        visual_VTRD[video, length:] = PADDING
    pool = PartnerPool(whole.labels_VK, whole.files, "event_free", LENGTHS) if partners else None
    return replace(
        whole,
        audio_VTD=audio_VTD,
        visual_VTRD=visual_VTRD,
        lengths_V=LENGTHS,
        partners=pool,
    )


def one_batch(videos: TrainingSet) -> Batch:
    (batch,) = worker_batches(
        videos, plan(batch_size=len(LENGTHS)), rank=0, num_workers=1, dtype=torch.float64
    )
    return batch


def losses_of_one_video(
    batch: Batch, model: torch.nn.Module, video: int
) -> dict[str, torch.Tensor]:
    """The losses of a video alone, from its own segments."""
    assert batch.lengths_N is not None
    length = int(batch.lengths_N[video])
    mask_WT = torch.from_numpy(WINDOWS(length))
    codes = model.encode(batch.audio_NTD[[video], :length], batch.visual_NTRD[[video], :length])
    labels = batch.labels_BK[[video]]
    logits = model.score(codes)
    losses = {"mil": mil_loss(logits, labels, model.pooling, "soft_margin")}
    if batch.partner_B is not None and batch.union_BK is not None:
        row = batch.num_videos + int(batch.partner_B[video])
        end = int(batch.lengths_N[row])
        codes_of_partner = model.encode(
            batch.audio_NTD[[row], :end], batch.visual_NTRD[[row], :end]
        )[:, resampled(length, end)]
        union = labels if length == 1 else batch.union_BK[[video]]
        synthetic = score_synthetic(model, codes, codes_of_partner, mask_WT)
        losses["auxiliary"] = auxiliary_loss(synthetic, union, model.pooling, "soft_margin")
    if batch.window_labels_BWK is not None:
        targets = batch.window_labels_BWK[[video], : len(mask_WT)]
        losses["refinement"] = refinement_loss(
            logits, targets, mask_WT, model.pooling, "soft_margin"
        )
    return losses


@pytest.mark.parametrize("name", ["ave", "psp", "cmran"])
@pytest.mark.parametrize(("partners", "window_labels"), [(True, False), (False, True)])
def test_losses_equal_those_of_each_video_alone(name, partners, window_labels):
    batch = one_batch(videos_of_different_lengths(partners=partners, window_labels=window_labels))
    step = objective(torch.float64, name=name)
    step.model.eval()

    losses = step(batch)

    for video in range(len(LENGTHS)):
        for loss, value in losses_of_one_video(batch, step.model, video).items():
            torch.testing.assert_close(losses[loss][[video]], value, rtol=0, atol=1e-12)


def test_batches_of_equal_lengths_give_the_losses_without_lengths_bit_for_bit():
    videos = replace(training_set(8), lengths_V=np.full(8, 10))
    step = objective(torch.float64)

    with_lengths = step(one_batch(videos))
    without = step(one_batch(replace(videos, lengths_V=None)))

    for loss, value in without.items():
        assert torch.equal(with_lengths[loss], value)


@pytest.mark.parametrize("name", [n for n in model_names() if n != "han"])
def test_probabilities_equal_those_of_each_video_alone(name):
    videos = videos_of_different_lengths(partners=False, window_labels=False)
    model = small_model(name, torch.float32, 0).eval()

    def predict(codes: torch.Tensor) -> torch.Tensor:
        return model.localize(codes).softmax(dim=-1)

    features = videos.audio_VTD, videos.visual_VTRD
    prob_VTK = predict_codes(predict, model, *features, LENGTHS, device=torch.device("cpu"))

    for video, length in enumerate(LENGTHS):
        assert (prob_VTK[video, length:] == 0).all()
        alone = predict_codes(
            predict,
            model,
            *(array[[video], :length] for array in features),
            None,
            device=torch.device("cpu"),
        )
        np.testing.assert_allclose(prob_VTK[video, :length], alone[0], rtol=0, atol=1e-6)
