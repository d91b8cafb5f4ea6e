"""Check a data set before training, and write a split without leaks.

A reader reports problems while it reads (`Problems`); the checks here compare all videos. They
change nothing: a published data set is used as published, unless `data.split` replaces its split.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from pyarrow import fs as pafs

from distributed_avel.datasets.base import (
    Span,
    Split,
    Video,
    VideoSet,
    feature_source,
    split_file,
)
from distributed_avel.datasets.findings import (
    MEANING,
    UNUSABLE,
    CheckReport,
    Finding,
    SplitFacts,
)
from distributed_avel.datasets.media_checks import Headers, check_media, count_short, read_headers
from distributed_avel.datasets.own_features import OwnFeatures
from distributed_avel.datasets.problems import Problems
from distributed_avel.errors import DatasetError
from distributed_avel.storage import Location


@dataclass(frozen=True, slots=True)
class Files:
    """Missing, empty and duplicate files of a data set, and the headers of media files.

    Args:
        missing: Files that do not exist.
        empty: Files of 0 bytes.
        twin_of: Maps a duplicate file to the first file with the same content.
        headers: Headers of media files.
    """

    missing: list[str]
    empty: list[str]
    twin_of: Mapping[str, str]
    headers: Headers = field(default_factory=dict)


NO_FILES = Files([], [], {})


def survey(videos: VideoSet, root: Location, features: Location | None = None) -> Files:
    """Find the files of a data set, compare those of equal size, and read media headers.

    Args:
        videos: The data set.
        root: Folder of its files.
        features: A user's own features (`data.features`); media files are then not needed.

    Raises:
        DatasetError: `features` does not exist, or a video has features of two kinds.
    """
    if features is not None:
        own = OwnFeatures(features, videos.timeline.num_segments)
        ids = sorted(video.video_id for video in videos.videos)
        files = {video_id: own.files_of(video_id) for video_id in ids}
        empty = {file.name for of_video in files.values() for file in of_video if not file.size}
        return Files([own.missing(i) for i in ids if not files[i]], sorted(empty), {})
    source = feature_source(videos.name)
    names = source.files_of(videos) if source else [video.uri for video in videos.videos]
    names = sorted({*names})
    infos = root.fs.get_file_info([(root / name).path for name in names])
    missing, empty, by_size = [], [], defaultdict(list)
    for name, info in zip(names, infos, strict=True):
        if info.type != pafs.FileType.File:
            missing.append(name)
        elif info.size == 0:
            empty.append(name)
        elif not source:  # feature arrays all have the same size, so comparing them is too slow
            by_size[info.size].append(name)
    twin_of: dict[str, str] = {}
    for same_size in by_size.values():
        first_of: dict[str, str] = {}
        for name in same_size if len(same_size) > 1 else []:
            first = first_of.setdefault(_digest(root / name), name)
            if first != name:
                twin_of[name] = first
    media = [] if source else sorted({*names} - {*missing, *empty})
    return Files(missing, empty, twin_of, read_headers(media, root))


def check(
    videos: VideoSet, problems: Problems, files: Files = NO_FILES, *, keeps_short: bool = False
) -> CheckReport:
    """Count the videos of a data set and find everything that looks wrong.

    Args:
        videos: The data set.
        problems: Errors and oddities that the reader reported.
        files: Result of `survey`; by default, files are not checked.
        keeps_short: Files with fewer segments than the timeline are used (`data.short_videos`).
    """
    findings = [
        *(Finding(UNUSABLE, "", message) for message in problems.errors),
        *(Finding(o.kind, o.where, o.message) for o in problems.oddities),
        *(Finding("missing file", name, "no such file") for name in files.missing),
        *(Finding("empty file", name, "0 bytes") for name in files.empty),
        *(
            Finding("same content", name, f"the same bytes as {first}")
            for name, first in files.twin_of.items()
        ),
        *check_media(videos, files.headers, keeps_short=keeps_short),
        *_shared_files(videos, files.twin_of, problems),
        *(
            finding
            for video in videos.videos
            for finding in _times_and_labels(video, videos, problems.places.get(video.video_id))
        ),
    ]
    findings += _without_times(videos)
    splits = {split: _facts(videos, videos.split(split)) for split in get_args(Split)}
    for name in videos.classes:
        held_out: tuple[Split, ...] = ("val", "test")
        used_in: list[Split] = [split for split in held_out if splits[split].class_counts[name]]
        if used_in and not splits["train"].class_counts[name]:
            first = next(
                v for v in videos.split(used_in[0]) if videos.classes.index(name) in v.labels
            )
            message = (
                f"in {' and '.join(used_in)}, not in train; first in {_cited(first, problems)}"
            )
            findings.append(Finding("class without training videos", name, message))
    order = list(MEANING)
    return CheckReport(
        dataset=videos.name,
        num_files=len({files.twin_of.get(v.uri, v.uri) for v in videos.videos}),
        splits=splits,
        findings=sorted(findings, key=lambda finding: order.index(finding.kind)),
        num_short=count_short(videos, files.headers) if keeps_short else 0,
    )


def unreadable(dataset: str, problems: Problems) -> CheckReport:
    """Return the report of a data set that cannot be read."""
    findings = [Finding(UNUSABLE, "", message) for message in problems.errors]
    return CheckReport(dataset=dataset, num_files=0, splits={}, findings=findings)


def without_leaks(
    videos: VideoSet, twin_of: Mapping[str, str] = NO_FILES.twin_of
) -> dict[Split, list[str]]:
    """Return a split, as video ids, in which no file is in two parts.

    All test videos are kept. Videos that share a file with a test video are removed from
    validation and training, and videos that share a file with validation from training.
    """
    kept: dict[Split, list[str]] = {}
    taken: set[str] = set()
    for split in ("test", "val", "train"):
        free = [v for v in videos.split(split) if twin_of.get(v.uri, v.uri) not in taken]
        kept[split] = [video.video_id for video in free]
        taken |= {twin_of.get(video.uri, video.uri) for video in free}
    return kept


def write_split(split: Mapping[Split, Iterable[str]], folder: Location) -> None:
    """Write a split in the format of `data.split`.

    Raises:
        DatasetError: A part of the split would be empty, or the folder already contains a split.
    """
    for name, ids in split.items():
        if not list(ids):
            raise DatasetError(f"no video would be left in {name!r}; nothing was written")
        if (folder / split_file(name)).exists():
            raise DatasetError(f"{folder / split_file(name)} already exists; use another folder")
    for name, ids in split.items():
        (folder / split_file(name)).write_bytes("".join(f"{i}\n" for i in ids).encode())


def _facts(videos: VideoSet, of_split: list[Video]) -> SplitFacts:
    counts = Counter(videos.classes[label] for video in of_split for label in video.labels)
    annotated = [video for video in of_split if video.spans is not None]
    share = None
    if annotated:
        share = float(videos.segment_labels(annotated)[:, :, -1].mean())
    return SplitFacts(
        num_videos=len(of_split),
        num_event_free=sum(not video.labels for video in of_split),
        num_annotated=len(annotated),
        background_share=share,
        class_counts={name: counts[name] for name in videos.classes},
    )


def _without_times(videos: VideoSet) -> Iterable[Finding]:
    """Find held-out videos whose events have no times, one finding per split."""
    for split in ("val", "test"):
        with_event = [video for video in videos.split(split) if video.labels]
        without = [video for video in with_event if video.spans is None]
        if without:
            message = f"{len(without)} of {len(with_event)} videos with an event"
            yield Finding("events without times", split, message)


def _shared_files(
    videos: VideoSet, twin_of: Mapping[str, str], problems: Problems
) -> Iterable[Finding]:
    """Find files that are in two splits (one finding per pair of splits) or twice in one split."""
    users: dict[str, list[Video]] = defaultdict(list)
    for video in videos.videos:
        users[twin_of.get(video.uri, video.uri)].append(video)
    for uri, of_file in users.items():
        ids = {
            split: [_cited(v, problems) for v in of_file if v.split == split]
            for split in get_args(Split)
        }
        used = [split for split in ids if ids[split]]
        for at, split in enumerate(used):
            for other in used[at + 1 :]:
                both = f"{split} ({', '.join(ids[split])}) and {other} ({', '.join(ids[other])})"
                yield Finding("file in two splits", uri, both)
            if len(ids[split]) > 1:
                yield Finding("file twice", uri, f"{split}: {', '.join(ids[split])}")


def _cited(video: Video, problems: Problems) -> str:
    """Return the id of a video, with the line that describes it if known."""
    place = problems.places.get(video.video_id)
    return f"{video.video_id} at {place.rpartition('/')[2]}" if place else video.video_id


def _times_and_labels(video: Video, videos: VideoSet, place: str | None) -> Iterable[Finding]:
    """Find events outside the video, overlaps, and labels that disagree with the ground truth."""
    if video.spans is None:
        return
    where, of_video = (place, f"{video.video_id}: ") if place else (video.video_id, "")
    modalities = (video.audio_spans, video.visual_spans)
    by_modality = [spans for spans in modalities if spans] if any(modalities) else [video.spans]
    end_s = videos.timeline.duration_s
    true = set()
    for spans in by_modality:
        for label in {span.label for span in spans}:
            label_spans = [(span.start_s, span.end_s) for span in spans if span.label == label]
            if videos.timeline.segments_of(label_spans):
                true.add(label)
        latest: dict[int, Span] = {}
        for span in sorted(spans, key=lambda span: span.start_s):
            name, times = videos.classes[span.label], f"from {span.start_s:g} to {span.end_s:g} s"
            if span.end_s > end_s + 1e-6:
                message = f"{of_video}{name} {times}, of {end_s:g} s"
                yield Finding("event outside the video", where, message)
            before = latest.get(span.label)
            if before and span.start_s < before.end_s:
                other = f"from {before.start_s:g} to {before.end_s:g} s"
                message = f"{of_video}{name} {other}, and {times}"
                yield Finding("overlapping spans", where, message)
            if not before or span.end_s > before.end_s:
                latest[span.label] = span
    for label in sorted({*video.labels} - true):
        yield Finding("label without ground truth", where, f"{of_video}{videos.classes[label]}")
    for label in sorted(true - {*video.labels}):
        message = f"{of_video}{videos.classes[label]}"
        yield Finding("ground truth outside the labels", where, message)


def _digest(file: Location) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
