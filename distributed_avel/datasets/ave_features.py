"""`ave_features`: AVE with its published features instead of the videos.

    <root>/Annotations.txt             as in `ave`; row k of the arrays belongs to its line k
    <root>/train_order.h5              `order`: the rows of each split; also val and test
    <root>/visual_feature.h5           (4143, T, 7, 7, 512) float32, 8 GB
    <root>/audio_feature.h5            (4143, T, 128)
    <root>/labels.h5                   optional: (4143, T, 29) segment labels, background last
    <root>/mil_labels.h5               optional: (4143, 29) video-level labels
    <root>/visual_feature_noisy.h5     optional, both or none: training videos without an event,
    <root>/audio_feature_noisy.h5      (178, T, 7, 7, 512) and (178, T, 128)
    <root>/labels_noisy.h5             optional: (178, 29), background throughout

The labels are those of Annotations.txt; the label files are compared with them row by row.
Features are read a few rows at a time, because the file of 8 GB may not fit into memory.

Shape suffixes used in this file:
    V = rows    T = segments    R = regions (49)    D = feature size    K = classes + background
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import h5py
import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import DataConfig
from distributed_avel.datasets.ave import (
    ANNOTATIONS,
    AnnotationRow,
    annotated_rows,
    class_list,
    note_unused,
    videos_of,
)
from distributed_avel.datasets.base import (
    FeatureChunk,
    Split,
    Video,
    VideoSet,
    register_dataset,
    register_features,
)
from distributed_avel.datasets.problems import Problems
from distributed_avel.errors import DatasetError
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline

ORDERS: dict[Split, str] = {
    "train": "train_order.h5",
    "val": "val_order.h5",
    "test": "test_order.h5",
}
VISUAL, AUDIO = "visual_feature.h5", "audio_feature.h5"
SEGMENT_LABELS, VIDEO_LABELS = "labels.h5", "mil_labels.h5"
NOISY_VISUAL, NOISY_AUDIO = "visual_feature_noisy.h5", "audio_feature_noisy.h5"
NOISY_LABELS = "labels_noisy.h5"
ARRAY, ORDER = "avadataset", "order"
REGIONS, VISUAL_DIM, AUDIO_DIM = (7, 7), 512, 128

_CHUNK = 32
_NOISY_ID = re.compile(r"noisy_(\d+)")
_FETCH = "fetch the published file again"


@register_dataset("ave_features")
def load_ave_features(config: DataConfig, root: Location, problems: Problems) -> VideoSet:
    """Return the rows of the published features as videos, and check them with the label files.

    Raises:
        DatasetError: A file is missing or is not HDF5; the message names it and the remedy.
    """
    rows = annotated_rows(root / ANNOTATIONS, problems)
    classes = class_list(rows, root / ANNOTATIONS, problems)
    split_rows = _splits(rows, root, problems)
    noisy = _noisy(root, problems)
    videos = [*videos_of(split_rows, classes, root, problems), *noisy]
    video_set = VideoSet(
        name=config.dataset,
        classes=classes,
        timeline=Timeline(num_segments=config.num_segments, segment_s=config.segment_s),
        videos=tuple(videos),
        synthetic=False,
    )
    number_of = {row.item_id: row.number for row in rows}
    num_rows = max(number_of.values(), default=-1) + 1
    for visual, audio, count in (
        (VISUAL, AUDIO, num_rows),
        *([(NOISY_VISUAL, NOISY_AUDIO, len(noisy))] if noisy else []),
    ):
        _check_shape(root / visual, (count, config.num_segments, *REGIONS, VISUAL_DIM), problems)
        _check_shape(root / audio, (count, config.num_segments, AUDIO_DIM), problems)
    _check_labels(video_set, number_of, num_rows, root, problems)
    return video_set


def feature_files(videos: VideoSet) -> list[str]:
    """Return the files that contain the features of these videos."""
    noisy = any(_NOISY_ID.fullmatch(video.video_id) for video in videos.videos)
    return [VISUAL, AUDIO, *([NOISY_VISUAL, NOISY_AUDIO] if noisy else [])]


@register_features("ave_features", files_of=feature_files)
def ave_features(config: DataConfig, root: Location) -> Iterator[FeatureChunk]:
    """Yield the features of 32 videos at a time: audio (V, T, 128) and visual (V, T, 49, 512).

    Raises:
        DatasetError: A row is not finite; the message names file, row and remedy.
    """
    problems = Problems()
    rows = annotated_rows(root / ANNOTATIONS, problems)
    item_of = {row.number: row.item_id for row, _ in _splits(rows, root, problems)}
    yield from _chunks(root, VISUAL, AUDIO, item_of)
    noisy = _noisy(root, problems)
    if noisy:
        item_of = {number: video.video_id for number, video in enumerate(noisy)}
        yield from _chunks(root, NOISY_VISUAL, NOISY_AUDIO, item_of)


def _chunks(
    root: Location, visual_name: str, audio_name: str, item_of: dict[int, str]
) -> Iterator[FeatureChunk]:
    """Yield the rows that are used, in the order of the file, which is read sequentially."""
    with _array(root / visual_name) as visual, _array(root / audio_name) as audio:
        for start in range(0, len(audio), _CHUNK):
            stop = min(start + _CHUNK, len(audio))
            used_rows = [number for number in range(start, stop) if number in item_of]
            if not used_rows:
                continue
            offsets = np.array(used_rows) - start
            with np.errstate(over="ignore"):
                visual_VTRD = visual[start:stop].astype(np.float16)[offsets]
            audio_VTD = audio[start:stop].astype(np.float32)[offsets]
            _refuse_not_finite(root / visual_name, visual_VTRD, used_rows)
            _refuse_not_finite(root / audio_name, audio_VTD, used_rows)
            num_videos, num_segments = visual_VTRD.shape[:2]
            yield FeatureChunk(
                video_ids=[item_of[number] for number in used_rows],
                audio_VTD=audio_VTD,
                visual_VTRD=visual_VTRD.reshape(num_videos, num_segments, -1, VISUAL_DIM),
            )


def _refuse_not_finite(file: Location, values: NDArray[np.floating], rows: list[int]) -> None:
    finite_V = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite_V.all():
        row = rows[int(np.flatnonzero(~finite_V)[0])]
        raise DatasetError(f"{file}: row {row}: a value is not finite in float16; {_FETCH}")


def _splits(
    rows: list[AnnotationRow], root: Location, problems: Problems
) -> list[tuple[AnnotationRow, Split]]:
    """Return the rows in the order files with their split, in the order of the files."""
    by_number = {row.number: row for row in rows}
    split_rows: dict[int, tuple[AnnotationRow, Split]] = {}
    orders: dict[Split, list[int]] = {}
    for split, name in ORDERS.items():
        with problems.collect():
            orders[split] = _row_numbers(root / name)
    if _start_at_one(orders, num_rows=max(by_number, default=-1) + 1):
        problems.error(
            f"{root}: the rows in {', '.join(ORDERS.values())} are 1-based, as in MATLAB: no file "
            f"has row 0, and one has row {len(rows)}; subtract 1 from every number in them"
        )
        return []
    for split, numbers in orders.items():
        file = root / ORDERS[split]
        for number in numbers:
            if number in split_rows:
                problems.error(
                    f"{file}: row {number} is already in {ORDERS[split_rows[number][1]]}; list "
                    f"each row only once, in one split"
                )
            elif number in by_number:
                split_rows[number] = (by_number[number], split)
            else:
                problems.error(
                    f"{file}: there is no row {number}: {ANNOTATIONS} has {len(rows)} usable rows, "
                    f"counted from 0; use both files of the same release"
                )
    note_unused(rows, {row.item_id for row, _ in split_rows.values()}, problems)
    return list(split_rows.values())


def _row_numbers(file: Location) -> list[int]:
    """Read the row numbers of one split.

    Integers stored as floats, and a single row or column, are accepted, because pandas and MATLAB
    write them and they are unambiguous.

    Raises:
        DatasetError: The array is not a list of row numbers; names file, array and remedy.
    """
    with _array(file, ORDER) as order:
        dtype, shape = order.dtype, order.shape
        numbers = np.asarray(order).reshape(-1) if dtype.kind in "iuf" and shape else np.zeros(0)
    remedy = (
        f"write {ORDER!r} as a list of row numbers of {ANNOTATIONS}, counted from 0, or {_FETCH}"
    )
    if dtype.kind not in "iuf" or not shape or len(numbers) != max(shape):
        raise DatasetError(
            f"{file}: expected a list of row numbers in {ORDER!r}, got values of type "
            f"{'text' if dtype.kind in 'OSU' else dtype} in shape {shape}; {remedy}"
        )
    if not len(numbers):
        raise DatasetError(f"{file}: {ORDER!r} is empty; every split needs a row; {remedy}")
    broken = np.flatnonzero(~np.isfinite(numbers) | (numbers != np.floor(numbers)))
    if len(broken):
        at = int(broken[0])
        raise DatasetError(
            f"{file}: {ORDER!r} has {numbers[at]:g} at position {at}, which is not a row number; "
            f"{remedy}"
        )
    return [int(number) for number in numbers]


def _start_at_one(orders: dict[Split, list[int]], num_rows: int) -> bool:
    """Return True if rows are 1-based: no number is 0, and the largest is the number of rows."""
    numbers = {number for of_split in orders.values() for number in of_split}
    return 0 not in numbers and max(numbers, default=0) == num_rows


def _noisy(root: Location, problems: Problems) -> list[Video]:
    """Return the training videos without an event, if both their feature files exist."""
    existing = [name for name in (NOISY_VISUAL, NOISY_AUDIO) if (root / name).exists()]
    if len(existing) == 1:
        (missing,) = {NOISY_VISUAL, NOISY_AUDIO} - {*existing}
        problems.oddity(
            "event-free videos left out",
            str(root / missing),
            f"does not exist, so the event-free videos of {existing[0]} are left out",
        )
    if len(existing) < 2:
        return []
    with _array(root / NOISY_AUDIO) as audio, _array(root / NOISY_VISUAL) as visual:
        num_rows = len(audio)
        if len(visual) != num_rows:
            problems.error(
                f"{root / NOISY_VISUAL}: {len(visual)} rows, but {NOISY_AUDIO} has {num_rows}; "
                f"use both files of the same release"
            )
            return []
    return [
        Video(
            video_id=f"noisy_{number:03d}",
            uri=f"{NOISY_VISUAL}/{number}",
            split="train",
            labels=(),
            spans=(),
        )
        for number in range(num_rows)
    ]


def _check_shape(file: Location, expected: tuple[int, ...], problems: Problems) -> bool:
    """Report an array of another shape, without reading its values."""
    with _array(file) as array:
        shape = array.shape
    if shape != expected:
        problems.error(
            f"{file}: expected an array of shape {expected}, got {shape}; {ANNOTATIONS} and "
            f"data.num_segments must match this file"
        )
    return shape == expected


def _check_labels(
    videos: VideoSet,
    number_of: dict[str, int],
    num_rows: int,
    root: Location,
    problems: Problems,
) -> None:
    """Compare the label files with the annotations, row by row."""
    annotated = [video for video in videos.videos if video.video_id in number_of]
    rows = [number_of[video.video_id] for video in annotated]
    event_free = [video for video in videos.videos if video.video_id not in number_of]
    num_columns = videos.num_classes + 1
    mismatch = f"does not match {ANNOTATIONS}; use both files of the same release"
    if not any((root / name).exists() for name in (VIDEO_LABELS, SEGMENT_LABELS)):
        problems.oddity(
            "order of rows not verified",
            str(root / VIDEO_LABELS),
            f"neither this file nor {SEGMENT_LABELS} exists, so it is not verified that row k of "
            f"{VISUAL} is annotation k of {ANNOTATIONS}",
        )
    files = (
        (VIDEO_LABELS, num_rows, rows, lambda: videos.video_labels(annotated)),
        (SEGMENT_LABELS, num_rows, rows, lambda: videos.segment_labels(annotated)),
        (
            NOISY_LABELS,
            len(event_free),
            list(range(len(event_free))),
            lambda: videos.video_labels(event_free),
        ),
    )
    for name, num_labels, label_rows, truth_of in files:
        file = root / name
        if not file.exists() or (name == NOISY_LABELS and not event_free):
            continue
        segments = (videos.timeline.num_segments,) if name == SEGMENT_LABELS else ()
        if not _check_shape(file, (num_labels, *segments, num_columns), problems):
            continue
        with _array(file) as array:
            if array.dtype.kind not in "biuf":
                problems.error(
                    f"{file}: expected 0 and 1 in {ARRAY!r}, got values of type {array.dtype}; "
                    f"{_FETCH}"
                )
                continue
            labels = np.asarray(array)[label_rows]
        # `all` over the other axes also works for zero rows, whose size reshape cannot infer.
        equal = (labels == truth_of()).all(axis=tuple(range(1, labels.ndim)))
        for number in np.array(label_rows)[~equal].tolist():
            problems.error(f"{file}: row {number}: {mismatch}")


@contextmanager
def _array(file: Location, name: str = ARRAY) -> Iterator[h5py.Dataset]:
    """Open an array of an HDF5 file on any file system.

    Raises:
        DatasetError: The file is missing or damaged, or has no such array.
    """
    if not file.exists():
        raise DatasetError(
            f"{file}: no such file; data.root must be the folder that contains {ANNOTATIONS}, "
            f"{', '.join(ORDERS.values())}, {VISUAL} and {AUDIO}; to read the videos instead of "
            f"features, set data.dataset to ave"
        )
    with file.fs.open_input_file(file.path) as stream:
        try:
            opened = h5py.File(file.path if file.is_local else stream, "r")
        except OSError as error:
            raise DatasetError(f"{file}: not a complete HDF5 file ({error}); {_FETCH}") from None
        with opened:
            array = opened.get(name)
            if isinstance(array, h5py.Group):
                raise DatasetError(
                    f"{file}: {name!r} is a group of arrays, as pandas writes "
                    f"({', '.join(array)}), not an array; write it with h5py: "
                    f"file.create_dataset({name!r}, data=values)"
                )
            if not isinstance(array, h5py.Dataset):
                content = ", ".join(opened) or "nothing"
                raise DatasetError(f"{file}: has no array {name!r}, only {content}; {_FETCH}")
            yield array
