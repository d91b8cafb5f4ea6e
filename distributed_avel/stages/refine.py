"""Stage `refine` (Step 2): score the windows of all videos with the base model, and choose tau.

Each video is encoded once; synthetic videos are composed of codes. Actors cache the codes of
partner videos, because many videos share a partner.

Shape suffixes used in this file:
    V, B = videos    P = partner videos    W = windows    T = segments    R = regions
    D = feature or code size    K = columns of labels
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel.arms import Scored
from distributed_avel.cluster.actor_pool import Pool, cut_into_units, run_units
from distributed_avel.config import RefineConfig, RunConfig
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import ArtifactError
from distributed_avel.features.store import FeatureStore
from distributed_avel.method.partners import PartnerPool
from distributed_avel.method.pseudo_labels import ThresholdCurve, filter_scores
from distributed_avel.method.windows import (
    WindowsOf,
    equal_lengths,
    most_windows,
    resampled,
    score_synthetic,
    single_segments,
    valid_windows,
    whole_video,
    windows_of_length,
)
from distributed_avel.models import BaseModel, ParsingModel
from distributed_avel.randomness import derive
from distributed_avel.schema import tensor_array, tensor_column, window_scores_schema
from distributed_avel.stages.base import BaseTraining
from distributed_avel.stages.cache_keys import PARTNERS, STEP_3, WINDOWS, refine_section
from distributed_avel.stages.stage import Context, Stage
from distributed_avel.stages.thresholds import (
    THRESHOLDS_FILE,
    ChosenThreshold,
    choose_threshold,
    read_threshold_curves,
    share_metrics,
    threshold_metrics,
)
from distributed_avel.storage import Location
from distributed_avel.tasks import Modality, Parsing, Task
from distributed_avel.train.arithmetic import reproducible_arithmetic
from distributed_avel.train.predict import segment_codes

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run

SCORES = "scores"
_MAX_CACHED_PARTNERS = 4096


class Refine(Stage[ChosenThreshold]):
    """Step 2.

    Args:
        base: Step 1, whose model scores the windows.
        scored: What Step 2 scores, see `arms.Scored`.
    """

    name = "refine"
    revision = 5
    command = "avel refine"
    manifest_type = ChosenThreshold

    def __init__(self, context: Context, base: BaseTraining, scored: Scored) -> None:
        super().__init__(context)
        self.base = base
        self.scored: Scored = scored

    def inputs(self) -> Sequence[Stage[Any]]:
        """Return the base model."""
        return (self.base,)

    def depends(self) -> Mapping[str, Any]:
        """Return the settings and the base model, which depends on the same videos."""
        return {"settings": settings(self.config, self.scored), "base": self.base.fingerprint}

    def compute(self, out: Location, run: "Run") -> ChosenThreshold:
        """Write window probabilities of the training and validation videos, and choose tau."""
        features, task = self.base.features, self.context.task
        videos = features.data.videos
        training, validation = features.usable("train"), features.usable("val")
        score_windows(
            videos,
            training if self.scored == "segments" else training + validation,
            training,
            make_model=self.base.trained(),
            features=features.location,
            task=task,
            windows_of=self.windows_of,
            config=self.config.refine,
            seed=self.config.seed,
            out=out,
            scored=self.scored,
            in_process=self.context.execution.in_process,
        )
        if self.scored == "segments":
            return ChosenThreshold()
        chosen = choose_threshold(
            task,
            videos,
            training,
            validation,
            lambda chosen: read_window_scores(out, [v.video_id for v in chosen]),
            features.lengths,
            self.windows_of,
            out,
        )
        if chosen.threshold is not None:
            run.metrics(threshold_metrics(chosen.threshold))
            run.metrics(share_metrics(chosen.removed_share))
            run.file(out / THRESHOLDS_FILE)
        return chosen

    @property
    def windows_of(self) -> WindowsOf:
        """The scored windows."""
        return scored_windows(self.scored, self.config)

    def valid_windows(self, videos: Sequence[Video]) -> NDArray[np.bool_] | None:
        """Return True for the windows that each video has, shape (V, W); None if all have all."""
        lengths_V = self.base.features.lengths(videos)
        if lengths_V is None:
            return None
        return valid_windows(lengths_V, self.windows_of, self.config.data.num_segments)

    def scores(self, videos: Sequence[Video]) -> NDArray[np.float32]:
        """Read Z-hat of videos, shape (V, W, K), in 0..1.

        Raises:
            ArtifactError: A video has no window scores.
        """
        return read_window_scores(self.location, [v.video_id for v in videos])

    def threshold_curves(self) -> dict[str, ThresholdCurve]:
        """Read the curves behind the choice of tau, by part; empty if tau was not chosen."""
        return read_threshold_curves(self.location)


def settings(config: RunConfig, scored: Scored) -> dict[str, Any]:
    """Return the settings of Step 2; its probabilities do not depend on tau."""
    unread: AbstractSet[str] = {
        "refined": frozenset(),
        "alone": PARTNERS,
        "exchanged": WINDOWS,
        "segments": PARTNERS | WINDOWS,
    }[scored]
    seed = {} if unread >= PARTNERS else {"seed": config.seed}
    return {**seed, "scored": scored, "refine": refine_section(config, STEP_3 | unread)}


class RefineWorker:
    """Scores the windows of units of videos with a base model.

    Args:
        make_model: Creates the trained model.
        features: Folder of the features.
        windows_of: Windows to score.
        num_windows: W, the largest number of windows of a video.
        task: Task of the model.
        scored: What to score.
        replaced: Modality to replace by that of a donor; None to score the videos themselves.
        use_gpu: Score on the GPU.
    """

    def __init__(
        self,
        make_model: Callable[[], BaseModel],
        features: Location,
        windows_of: WindowsOf,
        num_windows: int,
        task: Task,
        scored: Scored,
        *,
        replaced: Modality | None = None,
        use_gpu: bool = False,
    ) -> None:
        torch.set_num_threads(1)
        self._device = torch.device("cuda" if use_gpu else "cpu")
        self._model = make_model().to(self._device).eval()
        self._features = FeatureStore(features)
        self._windows_of, self._num_windows = windows_of, num_windows
        self._task, self._scored, self._replaced = task, scored, replaced
        self._partner_codes: OrderedDict[str, Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, rows: pa.Table) -> Mapping[str, pa.Table]:
        """Compute the window scores of a table with `video_id`, `targets` and `partners`.

        With a column `donor`, one modality of each video is replaced by that of its donor.
        """
        video_ids, partners = rows["video_id"].to_pylist(), rows["partners"].to_pylist()
        targets_BK = np.array(rows["targets"].to_pylist(), dtype=bool)
        lengths_B = self._features.lengths(video_ids)
        with reproducible_arithmetic(self._device):
            donors = rows["donor"].to_pylist() if self._replaced else video_ids
            if lengths_B is None:
                scores_BWK = self._equal_length(video_ids, partners, donors, None)
            else:
                shape = (len(video_ids), self._num_windows, targets_BK.shape[1])
                scores_BWK = np.zeros(shape, np.float32)
                for length, group in equal_lengths(lengths_B):
                    scores = self._equal_length(
                        [video_ids[n] for n in group],
                        [partners[n] for n in group],
                        [donors[n] for n in group],
                        length,
                    )
                    scores_BWK[group, : scores.shape[1]] = scores
        if self._scored != "segments":  # labels of segments are the unfiltered predictions
            scores_BWK = filter_scores(scores_BWK, targets_BK)
        schema = window_scores_schema(*scores_BWK.shape[1:])
        columns = [
            pa.array(video_ids, pa.string()),
            pa.array(partners, schema.field("partners").type),
            tensor_column(scores_BWK, schema.field("scores").type),
        ]
        return {SCORES: pa.Table.from_arrays(columns, schema=schema)}

    def _equal_length(
        self,
        video_ids: Sequence[str],
        partners: Sequence[Sequence[str]],
        donors: Sequence[str],
        length: int | None,
    ) -> NDArray[np.float32]:
        """Score videos of `length` segments (None: of T), shape (B, W, K)."""
        if self._replaced:
            codes_BTD = self._encode_spliced(video_ids, donors, length)
        else:
            codes_BTD = self._encode(video_ids, length)
        rounds = list(zip(*partners, strict=True))
        probs = [self._mixed(codes_BTD, drawn) for drawn in rounds] or [self._alone(codes_BTD)]
        return torch.stack(probs).mean(dim=0).cpu().numpy()

    def _mask(self, codes_BTD: Tensor) -> Tensor:
        return torch.from_numpy(self._windows_of(codes_BTD.shape[1])).to(self._device)

    def _mixed(self, codes_BTD: Tensor, partners: Sequence[str]) -> Tensor:
        """Compute probabilities with one partner video each, shape (B, W, K)."""
        partner_codes_BTD = self._encode_partners(partners, codes_BTD.shape[1])
        if self._scored == "exchanged":
            assert isinstance(self._task, Parsing)
            assert isinstance(self._model, ParsingModel)
            return self._task.exchanged_prob(self._model, codes_BTD, partner_codes_BTD)
        mask_WT = self._mask(codes_BTD)
        scores = score_synthetic(self._model, codes_BTD, partner_codes_BTD, mask_WT)
        return self._task.video_prob(self._model, scores)

    def _alone(self, codes_BTD: Tensor) -> Tensor:
        """Compute probabilities of windows or segments without partners, shape (B, W, K)."""
        if self._scored == "segments":
            return self._task.segment_prob(self._model, codes_BTD)
        scores = self._model.score(codes_BTD)
        return self._task.window_prob(self._model, scores, self._mask(codes_BTD))

    def _encode_spliced(
        self, video_ids: Sequence[str], donors: Sequence[str], length: int | None
    ) -> Tensor:
        """Encode videos of which one modality is that of another video, of the same length."""
        audio_BTD, visual_BTRD = self._features.read(video_ids)
        audio_BTD, visual_BTRD = audio_BTD[:, :length], visual_BTRD[:, :length]
        donor_audio_BTD, donor_visual_BTRD = self._features.read(donors)
        lengths_B = self._features.lengths(donors)
        if length is not None and lengths_B is not None:
            segments_BT = np.stack([resampled(length, int(of_donor)) for of_donor in lengths_B])
            rows_B1 = np.arange(len(donors))[:, None]
            donor_audio_BTD = donor_audio_BTD[rows_B1, segments_BT]
            donor_visual_BTRD = donor_visual_BTRD[rows_B1, segments_BT]
        if self._replaced == "audio":
            audio_BTD = donor_audio_BTD
        else:
            visual_BTRD = donor_visual_BTRD
        return segment_codes(
            self._model, audio_BTD, visual_BTRD, device=self._device, batch_size=16
        )

    def _encode(
        self, video_ids: Sequence[str], length: int | None = None, batch_size: int = 16
    ) -> Tensor:
        audio_BTD, visual_BTRD = self._features.read(video_ids)
        return segment_codes(
            self._model,
            audio_BTD[:, :length],
            visual_BTRD[:, :length],
            device=self._device,
            batch_size=batch_size,
        )

    def _encode_partners(self, partners: Sequence[str], num_segments: int) -> Tensor:
        """Return the codes of partners, resampled to a number of segments, shape (B, T, D)."""
        new = sorted(set(partners) - self._partner_codes.keys())
        if new:
            # One at a time: the rounding of codes depends on the batch size, and which partners
            # are new depends on the units that this actor processed before.
            codes_PTD = self._encode(new, batch_size=1)
            self._partner_codes.update(zip(new, codes_PTD, strict=True))
        lengths_B = self._features.lengths(partners)
        if lengths_B is None:
            codes = torch.stack([self._partner_codes[partner] for partner in partners])
        else:
            codes = torch.stack(
                [
                    self._partner_codes[partner][resampled(num_segments, int(length))]
                    for partner, length in zip(partners, lengths_B, strict=True)
                ]
            )
        while len(self._partner_codes) > _MAX_CACHED_PARTNERS:
            self._partner_codes.popitem(last=False)
        return codes


@dataclass(frozen=True, slots=True)
class _MakeWorker:
    make_model: Callable[[], BaseModel]
    features: Location
    windows_of: WindowsOf
    num_windows: int
    task: Task
    scored: Scored
    replaced: Modality | None
    use_gpu: bool

    def __call__(self) -> RefineWorker:
        return RefineWorker(
            self.make_model,
            self.features,
            self.windows_of,
            self.num_windows,
            self.task,
            self.scored,
            replaced=self.replaced,
            use_gpu=self.use_gpu,
        )


def scored_windows(scored: Scored, config: RunConfig) -> WindowsOf:
    """Return the windows that Step 2 scores.

    An exchanged modality is one window with all segments. If `scored` is "segments", each
    segment is one window.
    """
    if scored == "exchanged":
        return whole_video
    if scored == "segments":
        return single_segments
    refine = config.refine
    return partial(windows_of_length, window=refine.window, stride=refine.stride)


def score_windows(
    videos: VideoSet,
    chosen: Sequence[Video],
    training: Sequence[Video],
    *,
    make_model: Callable[[], BaseModel],
    features: Location,
    task: Task,
    windows_of: WindowsOf,
    config: RefineConfig,
    seed: int,
    out: Location,
    scored: Scored = "refined",
    replaced: Modality | None = None,
    in_process: bool = False,
) -> None:
    """Write Z-hat of the chosen videos to `out`; `read_window_scores` reads it.

    Args:
        videos: Data set.
        chosen: Videos to score.
        training: Videos that may be partners.
        make_model: Creates the trained model.
        features: Folder of the features.
        task: Task of the model.
        windows_of: Windows to score.
        config: Settings of Step 2.
        seed: Seed of the run; the partners of a video depend on it and on the id of the video.
        out: Folder of the stage.
        scored: What to score; "alone" and "segments" have no partners.
        replaced: Modality that is replaced by that of a donor, a second partner video; by default,
            the videos themselves are scored.
        in_process: Score in the current process instead of in actors, with the same results.

    Raises:
        DatasetError: A video has no partner.
        ArtifactError: Features are missing.
    """
    lengths_of = FeatureStore(features).lengths
    lengths_V, chosen_lengths_V = (
        lengths_of([v.video_id for v in some]) for some in (training, chosen)
    )
    candidates = PartnerPool(
        videos.video_labels(training), [v.uri for v in training], config.partners, lengths_V
    )
    lengths = [None] * len(chosen) if chosen_lengths_V is None else chosen_lengths_V.tolist()
    num_partners = 0 if scored in ("alone", "segments") else config.num_partners
    partners = [
        [
            training[candidates.draw(label_K, v.uri, number, length)].video_id
            for number in _numbers(seed, v.video_id, num_partners)
        ]
        for v, label_K, length in zip(chosen, videos.video_labels(chosen), lengths, strict=True)
    ]
    columns: dict[str, Any] = {
        "video_id": [v.video_id for v in chosen],
        "partners": pa.array(partners, pa.list_(pa.string())),
        "targets": task.targets(videos, chosen).tolist(),
    }
    if replaced:
        columns["donor"] = [
            training[
                candidates.draw(label_K, v.uri, derive(seed, "refine", "donor", v.video_id), length)
            ].video_id
            for v, label_K, length in zip(chosen, videos.video_labels(chosen), lengths, strict=True)
        ]
    rows = pa.table(columns)
    pool = Pool(num_actors=config.num_actors, gpus_per_actor=config.gpus_per_actor)
    run_units(
        f"calibrate {replaced}" if replaced else "refine",
        cut_into_units(rows, config.unit_size),
        _MakeWorker(
            make_model,
            features,
            windows_of,
            most_windows(windows_of, videos.timeline.num_segments),
            task,
            scored,
            replaced,
            config.gpus_per_actor > 0,
        ),
        out,
        None if in_process else pool,
    )


def _numbers(seed: int, video_id: str, count: int) -> list[int]:
    return [derive(seed, "refine", "partner", video_id, k) for k in range(count)]


def read_window_scores(out: Location, video_ids: Sequence[str]) -> NDArray[np.float32]:
    """Read Z-hat of videos, in this order, shape (V, W, K).

    Raises:
        ArtifactError: A video has no window scores.
    """
    parts = [part.read_table() for part in (out / SCORES).children()]
    table = pa.concat_tables(parts) if parts else pa.table({"video_id": pa.array([], pa.string())})
    row_of = {video_id: row for row, video_id in enumerate(table["video_id"].to_pylist())}
    missing = [video_id for video_id in video_ids if video_id not in row_of]
    if missing:
        raise ArtifactError(
            f"{out / SCORES}: no window scores of {missing[0]!r} ({len(missing)} videos); "
            "all machines must see the same run_dir: use a shared folder, s3:// or gs://"
        )
    return tensor_array(table["scores"])[[row_of[video_id] for video_id in video_ids]]
