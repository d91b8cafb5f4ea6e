"""A user's own features of the videos of any data set (`data.features`).

`data.features` is a folder with files for each video, or one file with the features of all videos:

    <folder>/<video_id>.npz                    arrays `audio` and `visual`
    <folder>/<video_id>.h5                     data sets `audio` and `visual`
    <folder>/audio/<video_id>.npy              and <folder>/visual/<video_id>.npy
    <file>.h5, <file>.hdf5 or <file>.npz       arrays `<video_id>/audio` and `<video_id>/visual`
    <file>.parquet                             columns video_id, audio and visual (tensors or lists)

`audio` has the shape (T, D) and `visual` (T, R, D), or (T, D) for one region. With
`data.short_videos: keep`, a video may have fewer segments. Nothing is unpickled.

Shape suffixes used in this file:
    V = videos    T = segments    R = regions    D = feature size
"""

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs as pafs

from distributed_avel.datasets.base import FeatureChunk
from distributed_avel.errors import ArtifactError, DatasetError, StorageError
from distributed_avel.storage import Location

Modality = Literal["audio", "visual"]
AUDIO: Modality = "audio"
VISUAL: Modality = "visual"
VIDEO_ID = "video_id"

_HDF5, _NPZ, _NPY, _PARQUET = (".h5", ".hdf5"), ".npz", ".npy", ".parquet"
_CHUNK = 32
_KEY = "data.features"


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file of features, with size (bytes) and time of change, which some storages lack."""

    name: str
    size: int
    mtime_ns: int | None


class OwnFeatures:
    """Features below `data.features`.

    Args:
        place: A folder, or one file.
        num_segments: T.
        keeps_short: Accept videos with fewer segments, whose features are padded with zeros.

    Raises:
        DatasetError: It does not exist, or is a file of another kind.
        StorageError: It cannot be read.
    """

    def __init__(self, place: Location, num_segments: int, *, keeps_short: bool = False) -> None:
        self._place, self._num_segments = place, num_segments
        self._keeps_short = keeps_short
        self.lengths: dict[str, int] = {}
        """Number of segments of each video that `read` has returned."""
        info = _storage(lambda: place.fs.get_file_info(place.path), place)
        if info.type == pafs.FileType.NotFound:
            raise DatasetError(
                f"{_KEY}: {place}: no such file or folder; give the folder or the file of your "
                "features"
            )
        self._is_folder = info.type == pafs.FileType.Directory
        self._table = OwnFile(place.name, info.size or 0, info.mtime_ns)
        if not self._is_folder and not place.name.endswith((*_HDF5, _NPZ, _PARQUET)):
            raise DatasetError(
                f"{_KEY}: {place}: not a folder, and not a file .h5, .npz or .parquet; convert it"
            )

    @cached_property
    def _files(self) -> dict[str, OwnFile]:
        """The files of the folder, by their paths below it."""
        selector = pafs.FileSelector(self._place.path, recursive=True)
        infos = _storage(lambda: self._place.fs.get_file_info(selector), self._place)
        below = self._place.path.rstrip("/") + "/"
        names = {info.path.removeprefix(below): info for info in infos if info.is_file}
        return {name: OwnFile(name, info.size, info.mtime_ns) for name, info in names.items()}

    def files_of(self, video_id: str) -> list[OwnFile]:
        """Return the files of a video; empty if it has no features, so far as names tell.

        Raises:
            DatasetError: It has features of two kinds.
        """
        if not self._is_folder:
            return [self._table]
        pair = [f"{AUDIO}/{video_id}{_NPY}", f"{VISUAL}/{video_id}{_NPY}"]
        layouts = [[f"{video_id}{suffix}"] for suffix in (_NPZ, *_HDF5)] + [pair]
        found = [names for names in layouts if all(name in self._files for name in names)]
        if len(found) > 1:
            raise DatasetError(
                f"{_KEY}: {video_id!r} has features in {found[0][0]} and {found[1][0]} of "
                f"{self._place}; keep one of them"
            )
        return [self._files[name] for names in found for name in names]

    def missing(self, video_id: str) -> str:
        """Say which files of a video, or which of its entries, would be its features."""
        if not self._is_folder:
            return f"{self._place} has no features of it"
        present = [m for m in (AUDIO, VISUAL) if f"{m}/{video_id}{_NPY}" in self._files]
        if present:
            (other,) = {AUDIO, VISUAL} - {*present}
            return f"no {other}/{video_id}{_NPY} in {self._place}"
        return (
            f"no {video_id}{_NPZ}, {video_id}{_HDF5[0]} or {AUDIO}/{video_id}{_NPY} in "
            f"{self._place}"
        )

    def read(self, video_ids: Sequence[str]) -> Iterator[FeatureChunk]:
        """Yield the features of the videos that have some, a few videos at a time.

        Raises:
            DatasetError: A file is damaged, or an array is missing or has another shape; names
                file, array, expected shape and remedy.
        """
        shapes = _Shapes(self._num_segments, keeps_short=self._keeps_short)
        rows = self._rows(video_ids)
        while chunk := [row for _, row in zip(range(_CHUNK), rows, strict=False)]:
            pairs = [shapes.checked(place, audio, visual) for _, place, audio, visual in chunk]
            self.lengths |= {video_id: len(audio) for video_id, _, audio, _ in chunk}
            yield FeatureChunk(
                video_ids=[video_id for video_id, *_ in chunk],
                audio_VTD=np.stack([self._padded(audio_TD) for audio_TD, _ in pairs]),
                visual_VTRD=np.stack([self._padded(visual_TRD) for _, visual_TRD in pairs]),
            )

    def _padded(self, values: NDArray[Any]) -> NDArray[Any]:
        """Append zeros up to T segments."""
        missing = self._num_segments - len(values)
        return np.pad(values, [(0, missing), *[(0, 0)] * (values.ndim - 1)]) if missing else values

    def _rows(
        self, video_ids: Sequence[str]
    ) -> Iterator[tuple[str, str, NDArray[Any], NDArray[Any]]]:
        """Yield video id, place for messages, audio and visual features."""
        if not self._is_folder:
            reader = _parquet_rows if self._place.name.endswith(_PARQUET) else _entries
            yield from reader(self._place, video_ids)
            return
        for video_id in video_ids:
            files = [self._place / file.name for file in self.files_of(video_id)]
            if len(files) == 2:
                audio, visual = (_npy(file) for file in files)
                yield video_id, " and ".join(map(str, files)), audio, visual
            elif files:
                with _opened(files[0]) as arrays:
                    audio, visual = (_entry(arrays, key, files[0]) for key in (AUDIO, VISUAL))
                yield video_id, str(files[0]), audio, visual


class _Shapes:
    """Checks arrays, and remembers the widths of the first video, which all others must have."""

    def __init__(self, num_segments: int, *, keeps_short: bool) -> None:
        self._num_segments, self._keeps_short = num_segments, keeps_short
        self._first: tuple[str, dict[str, tuple[int, ...]]] | None = None

    def checked(
        self, place: str, audio: NDArray[Any], visual: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Return audio (T, D) as float32 and visual (T, R, D) as float16."""
        if visual.ndim == 2:
            visual = visual[:, None, :]  # one region
        lengths = range(1 if self._keeps_short else self._num_segments, self._num_segments + 1)
        relation = "at most" if self._keeps_short else "="
        expected = {AUDIO: ("T", "D"), VISUAL: ("T", "R", "D")}
        for key, array in ((AUDIO, audio), (VISUAL, visual)):
            axes = expected[key]
            if array.ndim != len(axes) or len(array) not in lengths or 0 in array.shape:
                names = ", ".join(axes)
                raise DatasetError(
                    f"{place}: `{key}` has shape {array.shape}, expected ({names}) with T "
                    f"{relation} {self._num_segments}, data.num_segments; compute features of that "
                    "many segments, or set data.num_segments or data.short_videos"
                )
        if len(audio) != len(visual):
            raise DatasetError(
                f"{place}: `{AUDIO}` has {len(audio)} segments, `{VISUAL}` {len(visual)}; compute "
                "both for the same segments"
            )
        shapes = {AUDIO: audio.shape[1:], VISUAL: visual.shape[1:]}
        if self._first is None:
            self._first = place, shapes
        first, first_shapes = self._first
        for key, shape in shapes.items():
            if shape != first_shapes[key]:
                raise DatasetError(
                    f"{place}: `{key}` has widths {shape}, but {first_shapes[key]} in {first}; all "
                    "videos need features of one network; compute these again, or remove them to "
                    "leave the video out"
                )
        return (
            _finite(place, AUDIO, audio, np.dtype(np.float32)),
            _finite(place, VISUAL, visual, np.dtype(np.float16)),
        )


def _finite(place: str, key: str, array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "fiu":
        raise DatasetError(
            f"{place}: `{key}` has values of type {array.dtype}, expected floats; write numbers"
        )
    with np.errstate(over="ignore"):
        values = array.astype(dtype)
    if not np.isfinite(values).all():
        raise DatasetError(
            f"{place}: `{key}` has a value that is not finite in {dtype}; scale these features, "
            "compute them again, or remove them to leave the video out"
        )
    return values


# Files -------------------------------------------------------------------------------------------


@contextmanager
def _opened(file: Location) -> Iterator[Any]:
    """Open a file .npz or .h5 as a mapping from names to arrays.

    Raises:
        DatasetError: It is damaged.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(file.fs.open_input_file(file.path))
            if file.name.endswith(_NPZ):
                arrays = np.load(stream, allow_pickle=False)
                if not isinstance(arrays, np.lib.npyio.NpzFile):
                    raise ValueError("one array, not an .npz file; use numpy.savez")
                arrays = stack.enter_context(arrays)
            else:
                arrays = stack.enter_context(h5py.File(stream, "r"))
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise _damaged(file, error) from None
        yield arrays


def _entry(arrays: Any, key: str, file: Location) -> NDArray[Any]:
    """Read an array of an opened file.

    Raises:
        DatasetError: There is no such array, or it is damaged or pickled.
    """
    try:
        value = arrays.get(key)
        if not isinstance(value, h5py.Group) and value is not None:
            return np.asarray(value)
        found = ", ".join(sorted(arrays)[:5]) or "nothing"
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(file, error) from None
    raise DatasetError(f"{file}: has no array {key!r}, only {found}; write it")


def _entries(
    file: Location, video_ids: Sequence[str]
) -> Iterator[tuple[str, str, NDArray[Any], NDArray[Any]]]:
    """Yield the features of the videos in one file .npz or .h5."""
    with _opened(file) as arrays:
        for video_id in video_ids:
            keys = [f"{video_id}/{modality}" for modality in (AUDIO, VISUAL)]
            if any(key in arrays for key in keys):
                audio, visual = (_entry(arrays, key, file) for key in keys)
                yield video_id, f"{file}: {video_id!r}", audio, visual


def _npy(file: Location) -> NDArray[Any]:
    try:
        return np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Location, error: Exception) -> DatasetError:
    reason = str(error).splitlines() or [type(error).__name__]
    return DatasetError(
        f"{file}: cannot be read as features ({reason[0]}); compute them again, or remove them to "
        "leave the video out"
    )


# Parquet -----------------------------------------------------------------------------------------


def _parquet_rows(
    file: Location, video_ids: Sequence[str]
) -> Iterator[tuple[str, str, NDArray[Any], NDArray[Any]]]:
    """Yield the features of the videos in a Parquet file, in its order, a few rows at a time."""
    wanted, seen = {*video_ids}, set[str]()
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(file.fs.open_input_file(file.path))
            parquet = pq.ParquetFile(stream)
            _check_columns(parquet.schema_arrow, file)
            batches = parquet.iter_batches(batch_size=_CHUNK, columns=[VIDEO_ID, AUDIO, VISUAL])
            for batch in batches:
                for row, video_id in enumerate(batch[VIDEO_ID].to_pylist()):
                    if video_id in seen:
                        raise DatasetError(
                            f"{file}: {video_id!r} has two rows; keep one row for each video"
                        )
                    if video_id not in wanted:
                        continue
                    seen.add(video_id)
                    place = f"{file}: {video_id!r}"
                    audio, visual = (
                        _tensor(batch[key], row, key, place) for key in (AUDIO, VISUAL)
                    )
                    yield video_id, place, audio, visual
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(file, error) from None


def _check_columns(schema: pa.Schema, file: Location) -> None:
    """Refuse columns that are missing or of a type that holds no numbers."""
    for name in (VIDEO_ID, AUDIO, VISUAL):
        if name not in schema.names:
            raise DatasetError(
                f"{file}: has no column {name!r}, only {', '.join(schema.names)}; expected "
                f"{VIDEO_ID}, {AUDIO} and {VISUAL}"
            )
    ids = schema.field(VIDEO_ID).type
    if not (pa.types.is_string(ids) or pa.types.is_large_string(ids)):
        raise DatasetError(
            f"{file}: column {VIDEO_ID!r} has the type {ids}, expected string; convert it"
        )
    for name in (AUDIO, VISUAL):
        kind = schema.field(name).type
        inner = kind
        while _is_list(inner):
            inner = inner.value_type
        is_tensor = isinstance(kind, pa.FixedShapeTensorType)
        if not is_tensor and (inner is kind or not _is_number(inner)):
            raise DatasetError(
                f"{file}: column {name!r} has the type {kind}, expected a fixed-shape tensor or "
                "nested lists of numbers; convert it"
            )


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _tensor(column: pa.Array, row: int, key: str, place: str) -> NDArray[Any]:
    """Return the array of a row of tensors or nested lists."""
    cell = column.slice(row, 1)
    if cell.null_count:
        raise DatasetError(f"{place}: `{key}` is null; leave the row out")
    if isinstance(cell.type, pa.FixedShapeTensorType):
        return cell.to_numpy_ndarray()[0]
    shape: list[int] = []
    while _is_list(cell.type):
        lengths = pc.call_function("list_value_length", [cell]).unique().to_pylist()
        if len(lengths) != 1 or None in lengths:
            raise DatasetError(
                f"{place}: `{key}` has lists of different lengths, {lengths[:5]}; write a "
                "rectangular array"
            )
        shape, cell = [*shape, lengths[0]], cell.flatten()
    if cell.null_count:
        raise DatasetError(f"{place}: `{key}` has empty values; write numbers")
    return cell.to_numpy(zero_copy_only=False).reshape(shape)


def _storage(read: Callable[[], Any], place: Location) -> Any:
    try:
        return read()
    except (OSError, ArtifactError) as error:
        raise StorageError(f"{_KEY}: {place} cannot be read ({error})") from None
