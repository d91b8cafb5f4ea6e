"""How much faster Steps 1 and 2 are when synthetic videos share the codes of their segments.

    python benchmarks/sharing.py            paper size: batches of 64, 10 x 49 x 512, minutes
    python benchmarks/sharing.py --quick    small, seconds; its ratios mean little

Naive: for each window, a batch of synthetic videos is made of the float32 features (the partners'
are cloned, the window is copied in) and sent through the whole model. Shared: what
`train.objectives`, `train.predict` and `method.windows` do. Both are timed in turn in the same
process, and the ratio is the median of those of neighbours, so that it holds on a machine that
others use too; `--threads 1` is steadier there. It fails if their results differ.

Step 1 is one forward and backward pass, with L_MIL and L_A, of a batch in which every video has
another partner; fewer partners favour sharing. Step 2 is Z-hat of a batch: with the codes of
partners at hand, as every training video is encoded once anyway, or with partners encoded too.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel import models
from distributed_avel.method.losses import auxiliary_loss, mil_loss, union_of_labels
from distributed_avel.method.mil import mil_pool
from distributed_avel.method.pseudo_labels import filter_scores
from distributed_avel.method.windows import score_synthetic, window_mask
from distributed_avel.models import BaseModel
from distributed_avel.tasks import Localization
from distributed_avel.train.batches import Batch
from distributed_avel.train.objectives import Objective
from distributed_avel.train.predict import segment_codes

NUM_CLASSES = 28
WINDOWS = [(4, 2), (3, 1)]  # (N, s): T1 = 4 and 8
AIMS = {("Step 1", 4): 2.2, ("Step 1", 8): 3.5, ("Step 2", 4): 4.0, ("Step 2", 8): 6.5}
TOLERANCE = 1e-5  # float32: gradients relatively, Z-hat absolutely
CPU = torch.device("cpu")
T = TypeVar("T")


@dataclass(frozen=True)
class Videos:
    """Features as they are kept: visual in float16. Video i's partner is video B + i."""

    audio_NTD: NDArray[np.float32]
    visual_NTRD: NDArray[np.float16]
    labels_BK: NDArray[np.bool_]
    partner_labels_BK: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels_BK)


@dataclass(frozen=True)
class Row:
    """One comparison: median seconds, and how far the results are apart."""

    what: str
    num_windows: int
    times: "Times"
    difference: float


def random_videos(
    num_videos: int, generator: np.random.Generator, args: argparse.Namespace
) -> Videos:
    """Features as random as they may be; a time does not depend on them."""
    shape = (2 * num_videos, 10)
    visual = generator.random((*shape, args.regions, args.visual_dim), dtype=np.float32)
    labels = np.zeros((2, num_videos, NUM_CLASSES + 1), dtype=bool)
    labels[0, np.arange(num_videos), generator.integers(NUM_CLASSES, size=num_videos)] = True
    labels[1, :, -1] = True
    audio = generator.random((*shape, args.audio_dim), dtype=np.float32)
    return Videos(audio, visual.astype(np.float16), labels[0], labels[1])


def mix(features: Tensor, partner_features: Tensor, inside_T: Tensor) -> Tensor:
    """Features of synthetic videos: of the videos inside the window, of the partners outside."""
    mixed = partner_features.clone()
    first, *_, last = inside_T.nonzero().flatten().tolist()
    mixed[:, first : last + 1] = features[:, first : last + 1]
    return mixed


# Step 1


def naive_step_1(model: BaseModel, batch: Batch, mask_WT: Tensor) -> Tensor:
    """Sum over the batch of L_MIL + L_A, each synthetic video built from features."""
    num_videos = batch.num_videos
    audio, visual = batch.audio_NTD[:num_videos], batch.visual_NTRD[:num_videos]
    partners = batch.audio_NTD[num_videos:], batch.visual_NTRD[num_videos:]
    assert batch.union_BK is not None
    scores_WBTK = [
        model(mix(audio, partners[0], inside_T), mix(visual, partners[1], inside_T))
        for inside_T in mask_WT
    ]
    mil_B = mil_loss(model(audio, visual), batch.labels_BK, model.pooling, "soft_margin")
    auxiliary_B = auxiliary_loss(
        torch.stack(scores_WBTK, dim=1), batch.union_BK, model.pooling, "soft_margin"
    )
    return (mil_B + auxiliary_B).sum()


def shared_step_1(model: BaseModel, batch: Batch, mask_WT: Tensor) -> Tensor:
    """The same sum, as Step 1 computes it."""
    mask = mask_WT.numpy()
    objective = Objective(model, lambda _: mask, Localization(model.pooling, "soft_margin"))
    return torch.stack(list(objective(batch).values())).sum()


def step_1(model: BaseModel, videos: Videos, mask_WT: Tensor, repeats: int) -> Row:
    """Forward and backward passes."""
    model.train()
    labels_BK = torch.from_numpy(videos.labels_BK)
    batch = Batch(
        audio_NTD=torch.from_numpy(videos.audio_NTD),
        visual_NTRD=torch.from_numpy(videos.visual_NTRD).float(),
        labels_BK=labels_BK,
        weight_B=torch.ones(len(videos)),
        partner_B=torch.arange(len(videos)),
        union_BK=union_of_labels(labels_BK, torch.from_numpy(videos.partner_labels_BK)),
    )

    def gradients(loss: Callable[[BaseModel, Batch, Tensor], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            model.zero_grad(set_to_none=True)
            loss(model, batch, mask_WT).backward()
            return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

        return run

    naive, shared, times = timed(gradients(naive_step_1), gradients(shared_step_1), repeats)
    difference = float((naive - shared).abs().max() / naive.abs().max())
    return Row("Step 1", len(mask_WT), times, difference)


# Step 2


@torch.no_grad()
def naive_step_2(model: BaseModel, videos: Videos, mask_WT: Tensor) -> NDArray[np.float32]:
    """Z-hat, each synthetic video built from features."""
    model.eval()
    num_videos = len(videos)
    audio = torch.from_numpy(videos.audio_NTD)
    visual = torch.from_numpy(videos.visual_NTRD).float()
    prob_BWK = []
    for inside_T in mask_WT:
        mixed_audio = mix(audio[:num_videos], audio[num_videos:], inside_T)
        mixed_visual = mix(visual[:num_videos], visual[num_videos:], inside_T)
        pooled_BK = mil_pool(model(mixed_audio, mixed_visual), model.pooling)
        prob_BWK.append(pooled_BK.softmax(dim=-1).numpy())
    return filter_scores(np.stack(prob_BWK, axis=1), videos.labels_BK)


def shared_step_2(
    model: BaseModel, videos: Videos, mask_WT: Tensor, partner_codes_BTD: Tensor | None
) -> NDArray[np.float32]:
    """The same, as Step 2 computes it.

    Args:
        partner_codes_BTD: Codes of the partners; None if they are not at hand.
    """
    num_videos = len(videos)

    def codes(rows: slice) -> Tensor:
        return segment_codes(model, videos.audio_NTD[rows], videos.visual_NTRD[rows], device=CPU)

    codes_BTD = codes(slice(num_videos))
    if partner_codes_BTD is None:
        partner_codes_BTD = codes(slice(num_videos, None))
    with torch.no_grad():
        scores_BWTK = score_synthetic(model, codes_BTD, partner_codes_BTD, mask_WT)
        prob_BWK = mil_pool(scores_BWTK, model.pooling).softmax(dim=-1).numpy()
    return filter_scores(prob_BWK, videos.labels_BK)


def step_2(model: BaseModel, videos: Videos, mask_WT: Tensor, repeats: int, cached: bool) -> Row:
    """Z-hat of a batch."""
    rows = slice(len(videos), None)
    kept = segment_codes(model, videos.audio_NTD[rows], videos.visual_NTRD[rows], device=CPU)
    naive, shared, times = timed(
        lambda: naive_step_2(model, videos, mask_WT),
        lambda: shared_step_2(model, videos, mask_WT, kept if cached else None),
        repeats,
    )
    what = "Step 2" if cached else "Step 2, partners encoded too"
    return Row(what, len(mask_WT), times, float(np.abs(naive - shared).max()))


# Both


@dataclass(frozen=True)
class Times:
    """Seconds of two functions that were called in turn."""

    naive_s: list[float]
    shared_s: list[float]

    @property
    def ratio(self) -> float:
        """How many times faster the second is: the median over neighbours."""
        return statistics.median(a / b for a, b in zip(self.naive_s, self.shared_s, strict=True))


def timed(naive: Callable[[], T], shared: Callable[[], T], repeats: int) -> tuple[T, T, Times]:
    """What two functions return, and how long they take."""
    times = Times([], [])
    results = naive(), shared()  # the first calls are not timed
    for _ in range(repeats):
        for seconds, run in ((times.naive_s, naive), (times.shared_s, shared)):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
    return *results, times


def show(rows: Sequence[Row], quick: bool) -> None:
    """Print a table."""
    print(f"{'':30}{'T1':>3}{'naive':>10}{'shared':>10}{'ratio':>8}{'aim':>6}{'differ by':>12}")
    for row in rows:
        aim = AIMS.get((row.what, row.num_windows))
        naive_s, shared_s = map(statistics.median, (row.times.naive_s, row.times.shared_s))
        print(
            f"{row.what:30}{row.num_windows:3d}{naive_s:9.3f}s{shared_s:9.3f}s"
            f"{row.times.ratio:7.2f}x{'' if quick or aim is None else aim:>6}"
            f"{row.difference:12.1e}"
        )


def main() -> None:
    """Read the options, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat")
    parser.add_argument("--model", default="ave", choices=models.model_names())
    parser.add_argument("--batch-size", type=int, default=64, help="videos (default: 64)")
    parser.add_argument("--repeats", type=int, default=5, help="of each, in turn (default: 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.set_defaults(regions=49, visual_dim=512, audio_dim=128)
    args = parser.parse_args()
    if args.quick:
        args.batch_size, args.repeats, args.regions, args.visual_dim = 4, 1, 9, 64
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = models.create_model(
        args.model,
        num_classes=NUM_CLASSES,
        visual_dim=args.visual_dim,
        audio_dim=args.audio_dim,
        regions=args.regions,
    )
    videos = random_videos(args.batch_size, np.random.default_rng(0), args)
    print(
        f"{args.model}, batches of {args.batch_size} videos of 10 x {args.regions} x "
        f"{args.visual_dim}, {args.threads} threads, medians of {args.repeats}"
    )
    rows = []
    for window, stride in WINDOWS:
        mask_WT = torch.from_numpy(window_mask(10, window, stride))
        rows.append(step_1(model, videos, mask_WT, args.repeats))
        rows += [step_2(model, videos, mask_WT, args.repeats, cached) for cached in (True, False)]
    show(sorted(rows, key=lambda row: row.what), args.quick)
    if any(row.difference > TOLERANCE for row in rows):
        raise SystemExit(f"shared and naive results differ by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
