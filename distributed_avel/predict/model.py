"""A trained model, loaded from its folder, that finds events in media files."""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import (
    ArtifactError,
    AvelError,
    ConfigError,
    MediaError,
    StorageError,
    WeightsError,
)
from distributed_avel.features.any_length import AnyLengthRecipe, Piece
from distributed_avel.features.base import Extractor, ExtractorRecipe
from distributed_avel.features.decoder_pool import DecodingProcesses, Failed, StopStream
from distributed_avel.models import BaseModel
from distributed_avel.predict.hub import copy_files, download, upload
from distributed_avel.predict.inference import (
    CPU,
    WindowScorer,
    merge_phases,
    segment_probabilities,
)
from distributed_avel.predict.model_folder import (
    MODEL_CONFIG,
    MODEL_WEIGHTS,
    ModelSettings,
    read_model_folder,
)
from distributed_avel.predict.prediction import Column, Prediction
from distributed_avel.storage import Location
from distributed_avel.tasks import task_of
from distributed_avel.timeline import Timeline
from distributed_avel.train.checkpoint import load_weights
from distributed_avel.train.model_recipe import ModelRecipe

_MODALITIES = {"event": "audio-visual", "heard": "audio", "seen": "visual"}

_MAX_UNORDERED = 1000
"""Files that may be predicted before one that comes first and takes longer; only their predictions
are in memory."""

_HOP_TOLERANCE = 1e-3

_MAX_PHASES = 16
"""Shifted timelines of a hop; a file is decoded once for each."""

_OTHER_PLACE = (
    "other places can be named by weights and weights_dir of load_model, or by --weights and "
    "--weights-dir of avel predict"
)


def load_model(
    folder: str | Path | Location,
    *,
    use_gpu: bool = False,
    weights: Mapping[str, str] | None = None,
    weights_dir: str | Path | None = None,
    hop_s: float | None = None,
) -> "TrainedModel":
    """Load a model folder, such as `runs/demo/model`.

    The weights of the extractor must have the hashes that they had in training, wherever they are.

    Args:
        folder: Path or URI.
        use_gpu: Run the base model on the GPU.
        weights: File of the weights of a network of the extractor, by the network's name, as in
            `extract.weights`; it replaces what the folder says.
        weights_dir: Folder for downloaded weights, as in `extract.weights_dir`, which is not taken
            from the model folder; that of PyTorch by default.
        hop_s: Resolution of predictions for media files, in seconds: the length of a segment
            divided by a whole number, which is at most 16. Segments then start every `hop_s`, and
            their probabilities are averaged where they overlap. By default, segments do not
            overlap.

    Raises:
        ArtifactError: It is not a model folder, or it is damaged.
        ConfigError: The model or the extractor is not registered, there is no GPU, or `hop_s` is
            wrong.
        WeightsError: The weights of the extractor are missing or are others than in training.
    """
    location = folder if isinstance(folder, Location) else Location.at(folder)
    settings, content = read_model_folder(location)
    if settings.extract is not None:
        extract = _with_weights(settings.extract, weights or {}, weights_dir)
        settings = settings.model_copy(update={"extract": extract})
    return TrainedModel(settings, content, location, use_gpu=use_gpu, hop_s=hop_s)


class TrainedModel:
    """A trained model with its extractor.

    Args:
        weights: Content of the weights file.
        folder: Where settings and weights come from, for messages.
        use_gpu: Run the base model on the GPU.
        hop_s: See `load_model`.
    """

    def __init__(
        self,
        settings: ModelSettings,
        weights: bytes,
        folder: Location,
        *,
        use_gpu: bool = False,
        hop_s: float | None = None,
    ) -> None:
        if use_gpu and not torch.cuda.is_available():
            raise ConfigError("there is no GPU that PyTorch can use; leave out --gpu (use_gpu)")
        self.settings, self._folder = settings, folder
        self._device = torch.device("cuda") if use_gpu else CPU
        try:
            self.task = task_of(settings.model, settings.train)
            self.model = create_model(settings, weights, folder / MODEL_WEIGHTS)
            self._extractor = None if settings.extract is None else self._recipe()()
        except ConfigError as error:
            raise ConfigError(
                f"{folder / MODEL_CONFIG}: {error}; if a plug-in registers it, name its module "
                "with --plugins, or import it before load_model"
            ) from None
        self.model.to(self._device)
        if self._extractor is not None:
            _refuse_other_features(self._extractor, settings, folder / MODEL_CONFIG)
        self._num_phases = _num_phases(hop_s, settings.segment_s, self._extractor)
        self._decoding: DecodingProcesses | None = None
        self._num_processes = 0

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        endpoint: str | None = None,
        **options: Any,
    ) -> "TrainedModel":
        """Load a model of the Hugging Face hub, or a local model folder.

        Args:
            name: Repository, such as ORGANIZATION/NAME, or path of a folder, which is preferred.
            revision: Branch, tag or commit.
            cache_dir: Folder for downloads; that of huggingface_hub by default.
            token: Access token; that of `hf auth login` or HF_TOKEN by default.
            local_files_only: Use a downloaded model without asking the hub.
            endpoint: Address of another hub.
            options: Further arguments of `load_model`.

        Raises:
            AvelError: The repository cannot be read, see `hub.download`, or what `load_model`
                raises.
        """
        if Path(name).is_dir():
            return load_model(name, **options)
        folder = download(
            str(name),
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            endpoint=endpoint,
        )
        return load_model(folder, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Copy the model folder.

        Args:
            folder: Path or URI.
        """
        copy_files(self._folder, Location.at(folder))

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | None = None,
        endpoint: str | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Upload the model folder to the Hugging Face hub, and return the address of the commit.

        Args:
            name: Repository, such as ORGANIZATION/NAME; created if it does not exist.
            private: Whether a new repository is private; the default of the hub if None.
            revision: Branch; the main branch by default.
            token: Access token; that of `hf auth login` or HF_TOKEN by default.
            endpoint: Address of another hub.
            commit_message: Message of the commit.

        Raises:
            ConfigError: huggingface_hub is not installed.
            StorageError: The hub refuses or does not answer.
        """
        return upload(
            self._folder,
            name,
            private=private,
            revision=revision,
            token=token,
            endpoint=endpoint,
            message=commit_message,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the event classes."""
        return self.settings.classes

    @property
    def columns(self) -> tuple[Column, ...]:
        """Class and modality of each column of predictions, without background."""
        return tuple(
            Column(label, _MODALITIES[part]) for part in self.task.parts for label in self.classes
        )

    @property
    def extractor(self) -> Extractor:
        """The extractor, with the timeline of the training videos.

        Raises:
            ConfigError: The model was trained on features that its data set brought.
        """
        if self._extractor is None:
            raise ConfigError(
                f"{self.settings.arm}: trained on features that {self.settings.dataset} brings, so "
                "there is no extractor for media files; train on features of an extractor, or pass "
                "features to probabilities()"
            )
        return self._extractor

    def prediction(self, video: str, prob_MK: NDArray[np.float32], note: str = "") -> Prediction:
        """Turn the probabilities of one video into a prediction.

        Args:
            video: Name of the file.
            prob_MK: See `probabilities`.
            note: See `Prediction`.
        """
        return Prediction(
            video=video,
            segment_s=self.settings.segment_s / self._num_phases,
            columns=self.columns,
            probabilities=prob_MK,
            predicted=self.task.predicted(prob_MK[None])[0],
            note=note,
        )

    def predict(self, video: str | Path | Location) -> Prediction:
        """Find the events in one media file, of half a segment or more.

        Args:
            video: Path or URI.

        Raises:
            ConfigError: The model was trained on features that its data set brought.
            MediaError: The file cannot be used; the message says why.
            StorageError: The file cannot be read.
        """
        ((_, result),) = self.predict_all([video], max(1, self._num_processes))
        if isinstance(result, AvelError):
            raise result
        return result

    def predict_all(
        self, videos: Iterable[str | Path | Location], num_processes: int = 1
    ) -> Iterator[tuple[str, Prediction | MediaError | StorageError]]:
        """Find the events in many media files, in their order.

        Files are decoded in processes, which a damaged file cannot harm, while others are scored.
        A long file is decoded and scored in pieces. The processes are kept for the next call.

        Args:
            num_processes: Decoding processes.

        Yields:
            The name of each file, and its prediction or the reason why there is none.

        Raises:
            ConfigError: The model was trained on features that its data set brought.
        """
        extractor = self.extractor
        decoding = self._started(num_processes)
        extractor.load()
        names = iter(videos)
        stream = _Stream(decoding, num_waiting=2 * num_processes)
        scored: dict[int, _Scored] = {}
        results: dict[int, tuple[str, Prediction | MediaError | StorageError]] = {}
        num_submitted = num_yielded = 0
        try:
            while True:
                num_free = _MAX_UNORDERED - (num_submitted - num_yielded)
                num_more = min(num_free, 2 * num_processes - len(scored))
                for video in islice(names, max(0, num_more)):
                    scored[num_submitted] = _Scored(str(video))
                    stream.submit(num_submitted, video)
                    num_submitted += 1
                if not scored:
                    return
                number, item = stream.next()
                if isinstance(item, Piece):
                    self._add(scored[number], extractor, item)
                    continue
                video = scored.pop(number)
                results[number] = video.name, self._result(video, item.result())
                while num_yielded in results:
                    yield results.pop(num_yielded)
                    num_yielded += 1
        finally:
            stream.close()  # an abandoned call leaves no work for the next one

    def probabilities(
        self, audio_MD: NDArray[np.float32], visual_MRD: NDArray[np.float16]
    ) -> NDArray[np.float32]:
        """Probabilities of the segments of one video from its features, shape (M, K)."""
        num_segments = self.settings.num_segments
        return segment_probabilities(
            self.task, self.model, audio_MD, visual_MRD, num_segments, self._device
        )

    def _recipe(self) -> ExtractorRecipe:
        assert self.settings.extract is not None
        return ExtractorRecipe(self._timeline(self.settings.num_segments), self.settings.extract)

    def _timeline(self, num_segments: int) -> Timeline:
        return Timeline(num_segments=num_segments, segment_s=self.settings.segment_s)

    def _started(self, num_processes: int) -> DecodingProcesses:
        """Return decoding processes; they end with this object."""
        assert self.settings.extract is not None
        if self._decoding is None or self._num_processes != num_processes:
            if self._decoding is not None:
                self._decoding.close()
            self._decoding = DecodingProcesses(
                AnyLengthRecipe(self._recipe(), self._num_phases),
                num_processes=num_processes,
                timeout_s=self.settings.extract.timeout_s,
            )
            self._num_processes = num_processes
            weakref.finalize(self, self._decoding.close)
        return self._decoding

    def _add(self, video: "_Scored", extractor: Extractor, piece: Piece) -> None:
        """Score a piece of a video."""
        video.note = piece.extent.note
        if piece.phase not in video.scorers:
            video.scorers[piece.phase] = WindowScorer(
                self.task, self.model, self.settings.num_segments, self._device
            )
        timeline = self._timeline(piece.num_segments)
        (features,) = extractor.with_timeline(timeline).embed([piece.prepared])
        video.scorers[piece.phase].add(features.audio_TD, features.visual_TRD)

    def _result(
        self, video: "_Scored", failed: Failed | None
    ) -> Prediction | MediaError | StorageError:
        if failed is not None:
            kind = StorageError if failed.is_unreadable else MediaError
            return kind(f"{video.name}: {failed.reason}")
        prob_MK = video.scorers[0].finish()
        if self._num_phases > 1:
            no_segment = prob_MK[:0]
            others = (video.scorers.get(phase) for phase in range(1, self._num_phases))
            prob_of_phase = [scorer.finish() if scorer else no_segment for scorer in others]
            prob_MK = merge_phases([prob_MK, *prob_of_phase])
        if not np.isfinite(prob_MK).all():
            return MediaError(
                f"{video.name}: the model predicts values that are no numbers for this file; "
                "convert it, or train the model again"
            )
        return self.prediction(video.name, prob_MK, video.note)


@dataclass(slots=True)
class _Scored:
    """A video that is being decoded and scored."""

    name: str
    note: str = ""
    scorers: dict[int, WindowScorer] = field(default_factory=dict)  # by phase


class _Stream:
    """Pieces of several files, as the decoding processes finish them.

    Args:
        decoding: The processes.
        num_waiting: Pieces that may wait to be scored; the processes wait while there are more.
    """

    def __init__(self, decoding: DecodingProcesses, num_waiting: int) -> None:
        self._decoding = decoding
        self._items: SimpleQueue[tuple[int, Piece | Future[Failed | None]]] = SimpleQueue()
        self._slots = Semaphore(num_waiting)
        self._futures: dict[int, Future[Failed | None]] = {}
        self._is_closed = False

    def submit(self, number: int, video: str | Path | Location) -> None:
        """Decode a file; `next` returns its pieces with its number, and then its future."""
        location = video if isinstance(video, Location) else Location.at(video)

        def receive(piece: Piece) -> None:
            self._slots.acquire()
            if self._is_closed:
                self._slots.release()  # of the next thread that waits
                raise StopStream
            self._items.put((number, piece))

        future = self._decoding.stream(location, receive)
        self._futures[number] = future
        future.add_done_callback(lambda future: self._items.put((number, future)))

    def next(self) -> "tuple[int, Piece | Future[Failed | None]]":
        """Return the next piece of any file, or the future of a file that has ended."""
        number, item = self._items.get()
        if isinstance(item, Piece):
            self._slots.release()
        else:
            del self._futures[number]
        return number, item

    def close(self) -> None:
        """Stop decoding, and cancel the files that wait."""
        self._is_closed = True
        for future in [*self._futures.values()]:
            future.cancel()
        self._slots.release()


def _num_phases(hop_s: float | None, segment_s: float, extractor: Extractor | None) -> int:
    """Return the number of shifted timelines of a hop.

    Raises:
        ConfigError: The hop is no part of a segment or is too short, or the extractor cannot shift
            the timeline.
    """
    if hop_s is None:
        return 1
    shortest_s = segment_s / _MAX_PHASES
    if 0 < hop_s < shortest_s * (1 - _HOP_TOLERANCE):
        raise ConfigError(
            f"hop {hop_s:g} s: too short, because a file is decoded once for each start of a "
            f"segment; use {shortest_s:g} or more"
        )
    count = round(segment_s / hop_s) if hop_s > 0 else 0
    if count < 1 or abs(count * hop_s - segment_s) > _HOP_TOLERANCE * segment_s:
        raise ConfigError(
            f"hop {hop_s:g} s: a segment of {segment_s:g} s is no multiple of it; use for instance "
            f"{segment_s / 2:g} or {segment_s / 4:g}"
        )
    if count > 1 and extractor is not None and not extractor.independent_segments:
        raise ConfigError(
            f"hop {hop_s:g} s: the extractor {extractor.config.extractor} needs whole files; leave "
            "the hop out"
        )
    if count > 1 and extractor is not None and extractor.config.sampling == "published":
        raise ConfigError(
            f"hop {hop_s:g} s: the model was trained with extract.sampling published, which counts "
            "frames from the start of the file; leave the hop out, or train a model with "
            "extract.sampling time"
        )
    return count


def _with_weights(
    config: ExtractConfig, weights: Mapping[str, str], weights_dir: str | Path | None
) -> ExtractConfig:
    for network, source in config.weights.items():
        # A model folder may come from anybody: it may not make this machine ask another one.
        if "://" in source and network not in weights:
            raise ConfigError(
                f"{network}: weights from a URL are not fetched because a model folder says so; "
                f"fetch them, then name the file: --weights {network}=FILE"
            )
    # Nor may it choose the folder that downloads are written to.
    changed: dict[str, Any] = {
        "weights": {**config.weights, **weights},
        "weights_dir": None if weights_dir is None else str(weights_dir),
    }
    return config.model_copy(update=changed)


def create_model(settings: ModelSettings, weights: bytes, place: Location | str) -> BaseModel:
    """Create the base model of a model folder, in eval mode.

    Args:
        place: Where the weights come from, for messages.

    Raises:
        ArtifactError: The weights are those of another model.
        ConfigError: The model is not registered.
    """
    recipe = ModelRecipe(
        config=settings.model,
        num_classes=len(settings.classes),
        audio_shape=settings.audio_shape,
        visual_shape=settings.visual_shape,
    )
    model = recipe().eval()
    try:
        load_weights(model, weights, str(place))
    except ArtifactError as error:
        raise ArtifactError(
            f"{' '.join(str(error).split())}; {MODEL_CONFIG} was changed or belongs to another "
            "model: copy the whole folder again"
        ) from None
    return model


def _refuse_other_features(extractor: Extractor, settings: ModelSettings, place: Location) -> None:
    """Refuse an extractor whose features differ from those of the training.

    Raises:
        ArtifactError: They differ.
        WeightsError: Weights are missing.
    """
    try:
        present = extractor.provenance()
    except WeightsError as error:
        raise WeightsError(f"{place}: {error}; {_OTHER_PLACE}") from None
    trained = settings.extractor_provenance
    differences = [
        f"{key} was {trained.get(key)}, is {present.get(key)}"
        for key in sorted(trained.keys() | present.keys())
        if trained.get(key) != present.get(key)
    ]
    if differences:
        raise ArtifactError(
            f"{place}: the extractor is not that of the training: {'; '.join(differences)}; use "
            f"the same weights and settings ({_OTHER_PLACE})"
        )
