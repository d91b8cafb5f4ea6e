"""AVE, and any folder in its published layout.

    <root>/AVE/<video id>.mp4
    <root>/Annotations.txt       category&video id&quality&start&end, one row per event
    <root>/trainSet.txt          the rows of each split, in the same format,
    <root>/valSet.txt            or only the video id
    <root>/testSet.txt
    <root>/eventFreeSet.txt      optional: ids of training videos without any event

`ave_features` reads the published features of the same rows.

Each *row* is a video, as in AVE's feature files. An id with several rows (AVE has 45) becomes
several videos of one file, `<id>`, `<id>@2`, ... in the order of Annotations.txt, each with only
the event of its row. Some ids of AVE are in two splits, as published. The reader does not check
whether the mp4 files exist.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass

from distributed_avel.config import DataConfig
from distributed_avel.datasets.base import Span, Split, Video, VideoSet, register_dataset
from distributed_avel.datasets.names import check_names, first_places, nearest
from distributed_avel.datasets.problems import Problems
from distributed_avel.datasets.text import parse_seconds, read_lines
from distributed_avel.errors import ArtifactError, DatasetError
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline

AVE_CLASSES = (
    "Church bell",
    "Male speech, man speaking",
    "Bark",
    "Fixed-wing aircraft, airplane",
    "Race car, auto racing",
    "Female speech, woman speaking",
    "Helicopter",
    "Violin, fiddle",
    "Flute",
    "Ukulele",
    "Frying (food)",
    "Truck",
    "Shofar",
    "Motorcycle",
    "Acoustic guitar",
    "Train horn",
    "Clock",
    "Banjo",
    "Goat",
    "Baby cry, infant cry",
    "Bus",
    "Chainsaw",
    "Cat",
    "Horse",
    "Toilet flush",
    "Rodents, rats, mice",
    "Accordion",
    "Mandolin",
)
"""Classes of AVE, in the column order of its published labels; background is column 28."""

ANNOTATIONS = "Annotations.txt"
SPLIT_FILES: dict[Split, str] = {
    "train": "trainSet.txt",
    "val": "valSet.txt",
    "test": "testSet.txt",
}
EVENT_FREE = "eventFreeSet.txt"
MEDIA_FOLDER = "AVE"

_NO_EVENT = f"list a training video without an event in {EVENT_FREE}"

# A folder with at least this many of AVE's classes is AVE; other categories are then errors.
_SURELY_AVE = 14


@register_dataset("ave")
def load_ave(config: DataConfig, root: Location, problems: Problems) -> VideoSet:
    """Return the videos below `root`.

    Raises:
        DatasetError: A file is missing; the message names it and the remedy.
    """
    return read_layout(config, root, problems, name=config.dataset, synthetic=False)


def read_layout(
    config: DataConfig, root: Location, problems: Problems, *, name: str, synthetic: bool
) -> VideoSet:
    """Read a data set in AVE's layout.

    Args:
        config: Section `data` of the settings.
        root: Folder of the files.
        problems: Collects errors and oddities.
        name: Name of the data set.
        synthetic: Whether the data are generated.
    """
    rows = annotated_rows(root / ANNOTATIONS, problems)
    classes = class_list(rows, root / ANNOTATIONS, problems)
    split_rows = _splits(rows, root, problems)
    videos = videos_of(split_rows, classes, root, problems)
    annotated = {row.video_id for row in rows}
    event_free_ids: set[str] = set()
    for where, video_id in _event_free(root / EVENT_FREE, problems):
        if video_id in annotated:
            problems.error(
                f"{where}: {video_id!r} has an event in {ANNOTATIONS}; remove it from one of them"
            )
        elif video_id in event_free_ids:
            problems.error(f"{where}: {video_id!r} appears twice; remove one of the lines")
        else:
            event_free_ids.add(video_id)
            with problems.collect():
                videos.append(_video(video_id, video_id, "train", (), (), root, where))
                problems.places[video_id] = where
    return VideoSet(
        name=name,
        classes=classes,
        timeline=Timeline(num_segments=config.num_segments, segment_s=config.segment_s),
        videos=tuple(videos),
        synthetic=synthetic,
    )


def videos_of(
    split_rows: list[tuple["AnnotationRow", Split]],
    classes: tuple[str, ...],
    root: Location,
    problems: Problems,
) -> list[Video]:
    """Convert rows with their split to videos; rows of an unknown category are skipped."""
    videos = []
    for row, split in split_rows:
        if row.category not in classes:
            continue  # `class_list` has reported it
        label = classes.index(row.category)
        spans = (Span(label, row.start_s, row.end_s),) if row.end_s > row.start_s else ()
        if not spans:
            problems.oddity(
                "empty span",
                row.where,
                f"{row.video_id}: the event {row.category!r} starts and ends at {row.start_s:g} s",
            )
        with problems.collect():
            video = _video(row.item_id, row.video_id, split, (label,), spans, root, row.where)
            videos.append(video)
            problems.places[row.item_id] = row.where
    return videos


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """One line of Annotations.txt.

    Args:
        number: Index of the annotation (0-based), which is its row in AVE's feature files.
        item_id: Id of the video in the data set.
        video_id: Id of the file.
        category: Name of the event class.
        start_s: Start of the event, in seconds.
        end_s: End of the event, in seconds.
        where: File and line, for messages.
    """

    number: int
    item_id: str
    video_id: str
    category: str
    start_s: float
    end_s: float
    where: str

    @property
    def facts(self) -> tuple[str, str, float, float]:
        """Fields that the line of a split file repeats."""
        return self.category, self.video_id, self.start_s, self.end_s


def class_list(
    rows: list[AnnotationRow], annotations: Location, problems: Problems
) -> tuple[str, ...]:
    """Return AVE's classes if they include all categories, else the sorted categories.

    It is an error if the file is empty, or has most of AVE's categories and an unknown one.
    """
    places = first_places((row.category, row.where) for row in rows)
    categories = {*places}
    unknown = categories.difference(AVE_CLASSES)
    if not unknown:
        if not rows:
            problems.error(f"{annotations}: no annotation in the file")
        return AVE_CLASSES
    if len(categories) - len(unknown) < _SURELY_AVE:
        check_names(places, problems, can_be_empty=_NO_EVENT)
        return tuple(sorted(categories))
    for row in rows:
        if row.category in unknown:
            near = nearest(row.category, AVE_CLASSES)
            hint = f"; did you mean {near!r}?" if near else ""
            problems.error(
                f"{row.where}: unknown category {row.category!r}, not one of AVE's 28{hint}"
            )
    return AVE_CLASSES


def _video(item_id, video_id, split, labels, spans, root, where) -> Video:
    uri = f"{MEDIA_FOLDER}/{video_id}.mp4"
    try:
        _ = root / uri
    except ArtifactError:
        raise DatasetError(f"{where}: {video_id!r} is not a valid file name") from None
    return Video(video_id=item_id, uri=uri, split=split, labels=labels, spans=spans)


def annotated_rows(file: Location, problems: Problems) -> list[AnnotationRow]:
    """Return the valid lines of Annotations.txt, in their order."""
    rows, count = [], defaultdict(int)
    first_of: dict[tuple[str, str], AnnotationRow] = {}
    for number, (where, fields) in enumerate(_lines(file)):
        with problems.collect():
            category, video_id, start_s, end_s = _parse(where, fields)
            count[video_id] += 1
            item_id = video_id if count[video_id] == 1 else f"{video_id}@{count[video_id]}"
            row = AnnotationRow(number, item_id, video_id, category, start_s, end_s, where)
            rows.append(row)
            first = first_of.setdefault((video_id, category), row)
            if first is not row:
                problems.oddity(
                    "class in two rows of a file",
                    where,
                    f"{video_id}: {category} from {start_s:g} to {end_s:g} s, and in "
                    f"{first.where.rpartition('/')[2]} from {first.start_s:g} to {first.end_s:g} s",
                )
    return rows


def _splits(
    rows: list[AnnotationRow], root: Location, problems: Problems
) -> list[tuple[AnnotationRow, Split]]:
    """Return the rows in the split files with their split, in the order of the files."""
    by_id: dict[str, list[AnnotationRow]] = defaultdict(list)
    for row in rows:
        by_id[row.video_id].append(row)
    split_rows: dict[str, tuple[AnnotationRow, Split]] = {}
    for split, name in SPLIT_FILES.items():
        num_before = len(split_rows)
        lines = _lines(root / name)
        for where, fields in lines:
            with problems.collect():
                for row in _named(where, fields, by_id, split_rows):
                    split_rows[row.item_id] = (row, split)
        if not lines or (len(split_rows) == num_before and not problems.errors):
            problems.error(f"{root / name}: lists no video; every split needs at least one")
    note_unused(rows, {row.item_id for row, _ in split_rows.values()}, problems)
    return list(split_rows.values())


def note_unused(rows: list[AnnotationRow], used_ids: set[str], problems: Problems) -> None:
    """Report annotations that no split uses as oddities."""
    for row in rows:
        if row.item_id not in used_ids:
            problems.oddity("video in no split", row.where, f"{row.item_id}: {row.category}")


def _named(
    where: str,
    fields: list[str],
    by_id: dict[str, list[AnnotationRow]],
    split_rows: dict[str, tuple[AnnotationRow, Split]],
) -> list[AnnotationRow]:
    """Return the rows that one line of a split file refers to."""
    video_id = fields[0] if len(fields) == 1 else _parse(where, fields)[1]
    if video_id not in by_id:
        raise DatasetError(
            f"{where}: {video_id!r} has no line in {ANNOTATIONS}; add one, or list "
            f"a training video without an event in {EVENT_FREE}"
        )
    named = by_id[video_id]
    if len(fields) > 1:
        # Two identical lines are two videos: take the first one that is not used yet.
        named = [row for row in named if row.facts == _parse(where, fields)]
        named = [row for row in named if row.item_id not in split_rows][:1] or named[:1]
        if not named:
            raise DatasetError(
                f"{where}: {ANNOTATIONS} has {video_id!r} with another category or span; "
                f"make both files agree"
            )
    for row in named:
        if row.item_id in split_rows:
            raise DatasetError(
                f"{where}: {video_id!r} is already in {SPLIT_FILES[split_rows[row.item_id][1]]}; "
                f"list each row only once, in one split"
            )
    return named


def _event_free(file: Location, problems: Problems) -> list[tuple[str, str]]:
    if not file.exists():
        return []
    ids = []
    for where, fields in _lines(file):
        if len(fields) > 1:
            problems.error(f"{where}: expected only a video id, got {'&'.join(fields)!r}")
        else:
            ids.append((where, fields[0]))
    return ids


def _lines(file: Location) -> list[tuple[str, list[str]]]:
    """Return file and line, and the fields, of each line except blank lines and the header."""
    if not file.exists():
        raise DatasetError(
            f"{file}: no such file; data.root must be the folder that contains {ANNOTATIONS}, "
            f"{', '.join(SPLIT_FILES.values())} and {MEDIA_FOLDER}/"
        )
    lines = [
        (f"{file}:{number}", [field.strip() for field in line.split("&")])
        for number, line in enumerate(read_lines(file), start=1)
        if line.strip()
    ]
    return lines[1:] if lines and _is_header(lines[0][1]) else lines


def _is_header(fields: list[str]) -> bool:
    """Return True if the first line is a header: "video id", or words instead of the times."""
    if len(fields) == 1:
        return fields[0].lower().replace(" ", "").replace("_", "") == "videoid"
    times = [re.sub(r"[\W_]", "", field) for field in fields[3:]]
    return len(fields) == 5 and all(
        time.isalpha() and time.lower() not in ("nan", "inf") for time in times
    )


def _parse(where: str, fields: list[str]) -> tuple[str, str, float, float]:
    """Return category, video id, start and end of one line."""
    if len(fields) != 5:
        raise DatasetError(
            f"{where}: expected category&video id&quality&start&end, got {len(fields)} field(s)"
        )
    category, video_id, _, *times = fields
    if not category or not video_id:
        raise DatasetError(f"{where}: the {'video id' if category else 'category'} is empty")
    try:
        start_s, end_s = map(parse_seconds, times)
    except ValueError:
        hint = "; decimals need a point" if any("," in time for time in times) else ""
        raise DatasetError(
            f"{where}: start and end must be numbers of seconds, got {'&'.join(times)!r}{hint}"
        ) from None
    if not 0 <= start_s <= end_s < math.inf:
        raise DatasetError(
            f"{where}: start must be between 0 and end, got start {times[0]} and end {times[1]}"
        )
    return category, video_id, start_s, end_s
