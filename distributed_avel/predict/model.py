"""A trained model, loaded from its folder, that finds events in media files."""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distributed_avel.artifacts import Location
from distributed_avel.errors import ArtifactError, ConfigError, MediaError, StorageError
from distributed_avel.features.base import Extractor, ExtractorRecipe
from distributed_avel.features.decoder_pool import DecodingProcesses, Failed
from distributed_avel.media.container import MAX_MISSING_SEGMENTS, open_media
from distributed_avel.media.facts import TrackFacts, picture_facts, read_header
from distributed_avel.predict.inference import CPU, segment_probabilities
from distributed_avel.predict.model_folder import MODEL_WEIGHTS, ModelSettings, read_model_folder
from distributed_avel.predict.prediction import Column, Prediction
from distributed_avel.tasks import task_of
from distributed_avel.timeline import Timeline
from distributed_avel.train.checkpoint import load_weights
from distributed_avel.train.model_recipe import ModelRecipe

MAX_DURATION_S = 1200.0
"""Longest video. All sampled frames of a video are in memory at once: 0.6 MB per segment."""

_MODALITIES = {"event": "audio-visual", "heard": "audio", "seen": "visual"}


def load_model(folder: str | Path | Location, *, use_gpu: bool = False) -> "TrainedModel":
    """Load a model folder, such as `runs/demo/model`.

    Args:
        folder: Path or URI.
        use_gpu: Run the base model on the GPU.

    Raises:
        ArtifactError: It is not a model folder, or it is damaged.
        ConfigError: The model or the extractor is not registered.
        WeightsError: The weights of the extractor are missing or are others than in training.
    """
    location = folder if isinstance(folder, Location) else Location.at(folder)
    settings, weights = read_model_folder(location)
    return TrainedModel(settings, weights, str(location / MODEL_WEIGHTS), use_gpu=use_gpu)


class TrainedModel:
    """A trained model with its extractor.

    Args:
        weights: Content of the weights file.
        source: Where the weights come from, for messages.
    """

    def __init__(
        self, settings: ModelSettings, weights: bytes, source: str, *, use_gpu: bool = False
    ) -> None:
        self.settings = settings
        self.task = task_of(settings.model, settings.train)
        self._device = torch.device("cuda") if use_gpu else CPU
        recipe = ModelRecipe(
            config=settings.model,
            num_classes=len(settings.classes),
            audio_shape=settings.audio_shape,
            visual_shape=settings.visual_shape,
        )
        self.model = recipe().eval()
        load_weights(self.model, weights, source)
        self.model.to(self._device)
        if settings.extract is not None:
            found = self._recipe(settings.num_segments)().provenance()
            if found != settings.extractor_provenance:
                raise ArtifactError(
                    f"{source}: the extractor {settings.extract.extractor} of this installation "
                    f"({found}) is not that of the training ({settings.extractor_provenance}); use "
                    "the same weights and version"
                )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the event classes."""
        return self.settings.classes

    def predict(self, video: str | Path | Location) -> Prediction:
        """Find the events in one media file of any length up to `MAX_DURATION_S`.

        Args:
            video: Path or URI.

        Raises:
            MediaError: The file cannot be used; the message says why.
            StorageError: The file cannot be read.
        """
        ((_, result),) = self.predict_all([video])
        if isinstance(result, MediaError | StorageError):
            raise result
        return result

    def predict_all(
        self, videos: Iterable[str | Path | Location], num_processes: int = 1
    ) -> Iterator[tuple[str, Prediction | MediaError | StorageError]]:
        """Find the events in many media files, in their order.

        Files are decoded in processes, which a damaged file cannot harm, while others are scored.

        Args:
            num_processes: Decoding processes.

        Yields:
            The name of each file, and its prediction or the reason why there is none.

        Raises:
            ConfigError: The model was trained on features that its data set brought.
        """
        if self.settings.extract is None:
            raise ConfigError(
                f"{self.settings.arm}: trained on features that {self.settings.dataset} brings, so "
                "there is no extractor for media files; train on features of an extractor"
            )
        extractor = self._recipe(self.settings.num_segments)()
        extractor.load()
        names = iter(videos)
        with self._decoding(num_processes) as decoding:
            waiting = [self._submit(decoding, video) for video in islice(names, 2 * num_processes)]
            while waiting:
                name, decoded = waiting.pop(0)
                result = self._finish(name, extractor, decoded.result())
                waiting += [self._submit(decoding, video) for video in islice(names, 1)]
                yield name, result

    def probabilities(
        self, audio_MD: NDArray[np.float32], visual_MRD: NDArray[np.float16]
    ) -> NDArray[np.float32]:
        """Probabilities of the segments of one video from its features, shape (M, K)."""
        num_segments = self.settings.num_segments
        return segment_probabilities(
            self.task, self.model, audio_MD, visual_MRD, num_segments, self._device
        )

    def _recipe(self, num_segments: int) -> ExtractorRecipe:
        assert self.settings.extract is not None
        timeline = Timeline(num_segments=num_segments, segment_s=self.settings.segment_s)
        return ExtractorRecipe(timeline, self.settings.extract)

    @contextmanager
    def _decoding(self, num_processes: int) -> Iterator[DecodingProcesses]:
        assert self.settings.extract is not None
        decoding = DecodingProcesses(
            AnyLengthRecipe(self._recipe(self.settings.num_segments)),
            num_processes=num_processes,
            timeout_s=self.settings.extract.timeout_s,
        )
        try:
            yield decoding
        finally:
            decoding.close()

    def _submit(
        self, decoding: DecodingProcesses, video: str | Path | Location
    ) -> "tuple[str, Future[Any]]":
        location = video if isinstance(video, Location) else Location.at(video)
        return str(video), decoding.prepare(location)

    def _finish(
        self, name: str, extractor: Extractor, decoded: Any
    ) -> Prediction | MediaError | StorageError:
        if isinstance(decoded, Failed):
            kind = StorageError if decoded.is_unreadable else MediaError
            return kind(f"{name}: {decoded.reason}")
        num_segments, prepared = decoded
        timeline = Timeline(num_segments=num_segments, segment_s=self.settings.segment_s)
        (features,) = extractor.with_timeline(timeline).embed([prepared])
        prob_MK = self.probabilities(features.audio_TD, features.visual_TRD)
        return Prediction(
            video=name,
            segment_s=self.settings.segment_s,
            columns=self._columns(),
            probabilities=prob_MK,
            predicted=self.task.predicted(prob_MK[None])[0],
        )

    def _columns(self) -> tuple[Column, ...]:
        return tuple(
            Column(label, _MODALITIES[part]) for part in self.task.parts for label in self.classes
        )


class AnyLength:
    """Decodes files of any length in a decoding process.

    Args:
        extractor: An extractor with the segment length of the model.
    """

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor

    def prepare(self, media: bytes) -> tuple[int, Any]:
        """Decode a file; return the number of its segments and the input of `Extractor.embed`.

        Raises:
            MediaError: The file cannot be used, or is too long.
        """
        segment_s = self._extractor.timeline.segment_s
        num_segments = num_segments_of(media, segment_s)
        timeline = Timeline(num_segments=num_segments, segment_s=segment_s)
        return num_segments, self._extractor.with_timeline(timeline).prepare(media)


@dataclass(frozen=True, slots=True)
class AnyLengthRecipe:
    """A picklable factory of `AnyLength`."""

    extractor: ExtractorRecipe

    def __call__(self) -> Any:
        """Create one."""
        return AnyLength(self.extractor())


def num_segments_of(media: bytes, segment_s: float) -> int:
    """The number of segments of a media file, from the end of its shorter track.

    A last segment counts if at least half of it is there, as in extraction.

    Raises:
        MediaError: The file is shorter than that, longer than `MAX_DURATION_S`, or lacks a track.
    """
    header = read_header(media)
    ends_s = [end for track in (header.video, header.audio) if (end := _end_s(track)) is not None]
    if header.video is not None and _end_s(header.video) is None:
        with open_media(media) as opened:
            ends_s.append(picture_facts(opened, MAX_DURATION_S + segment_s).end_s)
    if not ends_s:
        ends_s = [header.duration_s or 0.0]
    end_s = min(ends_s)
    if end_s > MAX_DURATION_S:
        raise MediaError(
            f"{end_s:.0f} s long, more than the {MAX_DURATION_S:.0f} s that are predicted at once; "
            "cut it, such as: ffmpeg -i INPUT -f segment -segment_time 600 -reset_timestamps 1 "
            "-c copy PART%03d.mp4"
        )
    num_segments = math.floor(end_s / segment_s + MAX_MISSING_SEGMENTS)
    if num_segments < 1:
        raise MediaError(f"too short: {end_s:.2f} s, but a segment is {segment_s:g} s")
    return num_segments


def _end_s(track: TrackFacts | None) -> float | None:
    if track is None or track.duration_s is None:
        return None
    return (track.start_s or 0.0) + track.duration_s
