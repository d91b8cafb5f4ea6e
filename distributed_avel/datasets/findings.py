"""Findings of a data check: kinds with consequence and remedy, the report, and its text."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from distributed_avel.datasets.names import MERGED, SIMILAR, UNUSUAL

UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Meaning:
    """Consequence of the findings of one kind for the results, and the remedy."""

    consequence: str
    remedy: str


MEANING: dict[str, Meaning] = {
    UNUSABLE: Meaning(
        "the pipeline refuses the data set", "fix these first; each message gives the remedy"
    ),
    "missing file": Meaning(
        "these videos have no features: they are listed in failures.parquet and left out",
        "add the file, or remove its rows",
    ),
    "empty file": Meaning(
        "these videos have no features: they are listed in failures.parquet and left out",
        "fetch the file again, or remove its rows",
    ),
    "file without access": Meaning(
        "extraction stops at these files and names them",
        "check their permissions, or the storage",
    ),
    "unusable media file": Meaning(
        "these videos have no features: they are listed in failures.parquet and left out",
        "fetch the file again, or remove its rows",
    ),
    "missing track": Meaning(
        "these videos have no features: they are listed in failures.parquet and left out",
        "an event must be both visible and audible: use a file with both tracks, or remove its "
        "rows",
    ),
    "codec without a decoder": Meaning(
        "these videos have no features: they are listed in failures.parquet and left out",
        "convert the file with the command in the message",
    ),
    "media file too short": Meaning(
        "these videos have no features: they are listed in failures.parquet and left out",
        "use longer files, or lower data.num_segments",
    ),
    "media file cut off": Meaning(
        "anything after data.num_segments x data.segment_s is not used, and the label of an event "
        "that occurs only there is wrong",
        "raise data.num_segments, or cut the file to its events",
    ),
    "file in two splits": Meaning(
        "the model is evaluated on files that it was trained on",
        "write a split that shares no file with --write-split DIR",
    ),
    "same content": Meaning(
        "two files with equal content are one file in two videos", "remove one of them"
    ),
    "file twice": Meaning(
        "a file is several videos of one split", "none for AVE, which annotates 45 files twice"
    ),
    "class in two rows of a file": Meaning(
        "each row is a separate video, in which the event of the other row counts as background",
        "use data.dataset folder, where a row has several spans",
    ),
    MERGED: Meaning(
        "a video of both classes counts as one of a third class",
        "separate labels with ; if the name means several classes",
    ),
    SIMILAR: Meaning("one class may be counted as two", "use one spelling if both mean the same"),
    UNUSUAL: Meaning(
        "two names that look the same can be different classes", "retype the name in all its rows"
    ),
    "empty span": Meaning("an event of zero length is in no segment", "correct its times"),
    "offset before onset": Meaning(
        "an event that ends before it starts is in no segment", "swap its times"
    ),
    "event outside the video": Meaning(
        "only the time within data.num_segments x data.segment_s counts",
        "correct the times, or raise data.num_segments",
    ),
    "event twice": Meaning("it counts once", "remove one of the rows"),
    "overlapping spans": Meaning(
        "segments that are covered by several spans of one class count once", "join the spans"
    ),
    "label twice": Meaning("it counts once", "remove one of them"),
    "unknown video": Meaning(
        "these events belong to a video that is in no split, and are not used",
        "correct the name of the video, or remove the row",
    ),
    "video in no split": Meaning(
        "these annotated videos are not used", "add them to a split, if they should be used"
    ),
    "label without ground truth": Meaning(
        "the video-level label has an event that no segment has: segment metrics never count it",
        "add the times of the event, or remove the label",
    ),
    "ground truth outside the labels": Meaning(
        "a segment has an event that the video-level label lacks: training treats the event as "
        "absent",
        "add the event to the labels of the video",
    ),
    "events without times": Meaning(
        "these videos count in video-level metrics only; if no validation video has times, epochs "
        "and tau are selected without them",
        "add the times of their events, if segment metrics should count them",
    ),
    "class without training videos": Meaning(
        "the class cannot be learned, and lowers the scores of validation and test",
        "move some of its videos to train, or remove the label",
    ),
    "order of rows not verified": Meaning(
        "if row k of the features is not annotation k, labels and features belong to different "
        "videos",
        "add mil_labels.h5 or labels.h5 of the same release",
    ),
    "event-free videos left out": Meaning(
        "partner videos of Step 2 are worse without them", "fetch the missing file"
    ),
}
"""Kinds of findings, in the order of a report."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that looks wrong; `where` is a file, a file and line, or a video."""

    kind: str
    where: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFacts:
    """Counts of one split.

    Args:
        num_videos: Videos.
        num_event_free: Videos without an event.
        num_annotated: Videos with segment-level labels.
        background_share: Share of the segments of annotated videos without an audio-visual event,
            in 0..1; None without annotated videos.
        class_counts: Videos by class.
    """

    num_videos: int
    num_event_free: int
    num_annotated: int
    background_share: float | None
    class_counts: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """Counts and findings of a data set.

    Args:
        splits: Facts of each split; empty if the data set cannot be read.
        num_short: Files with fewer segments than the timeline that are used.
    """

    dataset: str
    num_files: int
    splits: dict[str, SplitFacts]
    findings: list[Finding]
    num_short: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-compatible values."""
        return asdict(self)

    def counts(self) -> dict[str, int]:
        """Count the findings of each kind, in the order of `MEANING`."""
        counts = Counter(finding.kind for finding in self.findings)
        return {kind: counts[kind] for kind in MEANING if counts[kind]}


def render(report: CheckReport, shown: int = 5) -> str:
    """Format the report for a terminal, with the first `shown` findings of each kind."""
    lines = [report.dataset]
    if report.splits:
        lines += ["", *_table(report)]
    counts = report.counts()
    lines += ["", f"{sum(counts.values())} finding(s)" if counts else "No problems found."]
    for kind, count in counts.items():
        of_kind = [finding for finding in report.findings if finding.kind == kind]
        lines += ["", f"{kind} ({count})"]
        lines += [f"  consequence: {MEANING[kind].consequence}"]
        lines += [f"  remedy: {MEANING[kind].remedy}"]
        for finding in of_kind[:shown]:
            where = f"{finding.where}: " if finding.where else ""
            lines.append(f"    {where}{finding.message}")
        if count > shown:
            lines.append(f"    ... and {count - shown} more, with --json")
    return "\n".join(lines)


def _table(report: CheckReport) -> list[str]:
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
        *[f"{report.num_short} of them are shorter; the segments that they have are used"]
        * bool(report.num_short),
    ]
