"""What is wrong with a data set, before anything is trained on it, and a split without leaks.

A reader notes what it met while reading (`Problems`); here, the videos are looked at as a whole.
Nothing is changed: a published data set is scored as it was published, and whoever wants it
otherwise says so with `data.split`.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from pyarrow import fs as pafs

from distributed_avel.artifacts import Location
from distributed_avel.datasets.base import Split, Video, VideoSet, feature_source, split_file
from distributed_avel.datasets.problems import Problems
from distributed_avel.errors import DatasetError

UNUSABLE = "unusable"

MEANING: dict[str, str] = {
    UNUSABLE: "the pipeline refuses the data set until these are mended",
    "missing file": "these videos end in the table of failures",
    "empty file": "these videos end in the table of failures",
    "file in two splits": "what is trained on is tested again; see --write-split",
    "same content": "files of one content under two names count as one; remove one",
    "file twice": "a file is several videos of one split, as AVE's files of two events are",
    "empty span": "an event that lasts no time is in no segment",
    "offset before onset": "an event that ends before it begins is in no segment",
    "event outside the video": "only what lies within data.num_segments x data.segment_s counts",
    "event twice": "it counts once",
    "label twice": "it counts once",
    "unknown video": "these events belong to no video of the splits, and are not used",
    "label without truth": "the video-level label names an event that no segment has",
    "truth outside labels": "a segment has an event that the video-level label lacks",
    "class without training videos": "it cannot be learnt, but is asked for",
    "event-free videos left out": "partner videos without an event make Step 2 better",
}
"""Kinds of findings, in the order of a report, and what each means to the user."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong; `where` names a file, a file and line, or a video."""

    kind: str
    where: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFacts:
    """What a split consists of.

    `background_share` is the part of the segments without an audio-visual event, 0..1, over the
    `num_annotated` videos whose segments somebody annotated.
    """

    num_videos: int
    num_event_free: int
    num_annotated: int
    background_share: float | None
    class_counts: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The facts of a data set and all that is wrong with it; no facts if it cannot be read."""

    dataset: str
    num_files: int
    splits: dict[str, SplitFacts]
    findings: list[Finding]

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)

    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind, in the order of `MEANING`."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in MEANING if found[kind]}


@dataclass(frozen=True, slots=True)
class Files:
    """What the files of a data set are like, and not what is in them.

    `twin_of` leads from a file to the first one of the same content, if there is one before it.
    """

    missing: list[str]
    empty: list[str]
    twin_of: Mapping[str, str]


NO_FILES = Files([], [], {})


def survey(videos: VideoSet, root: Location) -> Files:
    """Look at the files below `root`; of those of equal size, the content is compared."""
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
        elif not source:  # arrays of one shape have one size
            by_size[info.size].append(name)
    twin_of: dict[str, str] = {}
    for same_size in by_size.values():
        first_of: dict[str, str] = {}
        for name in same_size if len(same_size) > 1 else []:
            first = first_of.setdefault(_digest(root / name), name)
            if first != name:
                twin_of[name] = first
    return Files(missing, empty, twin_of)


def check(videos: VideoSet, problems: Problems, files: Files = NO_FILES) -> Report:
    """All that is wrong with a data set.

    Args:
        problems: What its reader noted.
        files: From `survey`; without, no file is looked for.
    """
    findings = [
        *(Finding(UNUSABLE, "", message) for message in problems.errors),
        *(Finding(o.kind, o.where, o.message) for o in problems.oddities),
        *(Finding("missing file", name, "no such file") for name in files.missing),
        *(Finding("empty file", name, "has no byte") for name in files.empty),
        *(
            Finding("same content", name, f"the same bytes as {first}")
            for name, first in files.twin_of.items()
        ),
        *_shared_files(videos, files.twin_of),
        *(finding for video in videos.videos for finding in _times_and_labels(video, videos)),
    ]
    splits = {split: _facts(videos, videos.split(split)) for split in get_args(Split)}
    for name in videos.classes:
        wanted = [split for split in ("val", "test") if splits[split].class_counts[name]]
        if wanted and not splits["train"].class_counts[name]:
            message = f"{', '.join(wanted)} have it, train does not"
            findings.append(Finding("class without training videos", name, message))
    order = list(MEANING)
    return Report(
        dataset=videos.name,
        num_files=len({files.twin_of.get(v.uri, v.uri) for v in videos.videos}),
        splits=splits,
        findings=sorted(findings, key=lambda finding: order.index(finding.kind)),
    )


def unreadable(dataset: str, problems: Problems) -> Report:
    """The report of a data set whose reader could not go on."""
    findings = [Finding(UNUSABLE, "", message) for message in problems.errors]
    return Report(dataset=dataset, num_files=0, splits={}, findings=findings)


def without_leaks(
    videos: VideoSet, twin_of: Mapping[str, str] = NO_FILES.twin_of
) -> dict[Split, list[str]]:
    """Ids of each split, so that no file is in two.

    Test videos all stay. What they share a file with is taken out of validation and training,
    and what validation shares a file with out of training.
    """
    kept: dict[Split, list[str]] = {}
    taken: set[str] = set()
    for split in ("test", "val", "train"):
        free = [v for v in videos.split(split) if twin_of.get(v.uri, v.uri) not in taken]
        kept[split] = [video.video_id for video in free]
        taken |= {twin_of.get(video.uri, video.uri) for video in free}
    return kept


def write_split(split: Mapping[Split, Iterable[str]], folder: Location) -> None:
    """Write a split as `data.split` takes it.

    Raises:
        DatasetError: It would be empty in part, or the folder holds one already.
    """
    for name, ids in split.items():
        if not list(ids):
            raise DatasetError(f"no video would be left in {name!r}; nothing was written")
        if (folder / split_file(name)).exists():
            raise DatasetError(
                f"{folder / split_file(name)}: is there already; name another folder"
            )
    for name, ids in split.items():
        (folder / split_file(name)).write_bytes("".join(f"{i}\n" for i in ids).encode())


def render(report: Report, shown: int = 5) -> str:
    """The report for a terminal, with so many examples of each kind."""
    lines = [report.dataset]
    if report.splits:
        lines += ["", *_table(report)]
    counts = report.counts()
    lines += ["", f"{sum(counts.values())} finding(s)" if counts else "Nothing wrong was found."]
    for kind, count in counts.items():
        lines += ["", f"{kind} ({count}): {MEANING[kind]}"]
        of_kind = [finding for finding in report.findings if finding.kind == kind]
        for finding in of_kind[:shown]:
            where = f"{finding.where}: " if finding.where else ""
            lines.append(f"    {where}{finding.message}")
        if count > shown:
            lines.append(f"    ... and {count - shown} more, with --json")
    return "\n".join(lines)


def _table(report: Report) -> list[str]:
    splits = report.splits
    rows: list[tuple[str, list[str]]] = [
        ("", list(splits)),
        ("videos", [str(facts.num_videos) for facts in splits.values()]),
        ("  without an event", [str(facts.num_event_free) for facts in splits.values()]),
        ("  segments annotated", [str(facts.num_annotated) for facts in splits.values()]),
        (
            "background segments",
            [
                "-" if facts.background_share is None else f"{100 * facts.background_share:.1f} %"
                for facts in splits.values()
            ],
        ),
    ]
    names = next(iter(splits.values())).class_counts
    rows += [(name, [str(facts.class_counts[name]) for facts in splits.values()]) for name in names]
    width = max(len(name) for name, _ in rows)
    return [
        *(f"{name:<{width}}" + "".join(f"{cell:>9}" for cell in cells) for name, cells in rows),
        f"{report.num_files} files",
    ]


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


def _shared_files(videos: VideoSet, twin_of: Mapping[str, str]) -> Iterable[Finding]:
    """Files in two splits, once for each pair of them, and files that a split has twice."""
    users: dict[str, list[Video]] = defaultdict(list)
    for video in videos.videos:
        users[twin_of.get(video.uri, video.uri)].append(video)
    for uri, of_file in users.items():
        ids = {
            split: [v.video_id for v in of_file if v.split == split] for split in get_args(Split)
        }
        used = [split for split in ids if ids[split]]
        for at, split in enumerate(used):
            for other in used[at + 1 :]:
                both = f"{split} ({', '.join(ids[split])}) and {other} ({', '.join(ids[other])})"
                yield Finding("file in two splits", uri, both)
            if len(ids[split]) > 1:
                yield Finding("file twice", uri, f"{split}: {', '.join(ids[split])}")


def _times_and_labels(video: Video, videos: VideoSet) -> Iterable[Finding]:
    """Events outside the video, and where the labels and the truth disagree."""
    if video.spans is None:
        return
    apart = (video.audio_spans, video.visual_spans)
    spans = [span for some in apart for span in some or ()] if any(apart) else [*video.spans]
    end_s = videos.timeline.duration_s
    true = set()
    for span in spans:
        if videos.timeline.segments_of(span.start_s, span.end_s):
            true.add(span.label)
        if span.end_s > end_s + 1e-6:
            yield Finding(
                "event outside the video",
                video.video_id,
                f"{videos.classes[span.label]} from {span.start_s:g} to {span.end_s:g} s, of "
                f"{end_s:g} s",
            )
    for label in sorted({*video.labels} - true):
        yield Finding("label without truth", video.video_id, videos.classes[label])
    for label in sorted(true - {*video.labels}):
        yield Finding("truth outside labels", video.video_id, videos.classes[label])


def _digest(file: Location) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
