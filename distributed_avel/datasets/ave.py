"""AVE, and every folder in its published layout.

    <root>/AVE/<video id>.mp4
    <root>/Annotations.txt       category&video id&quality&start&end, a row an event
    <root>/trainSet.txt          the rows of each split, in the same form,
    <root>/valSet.txt            or the video id alone
    <root>/testSet.txt
    <root>/eventFreeSet.txt      optional: ids of training videos without any event

An item is a *row*, as in AVE's own feature files: an id that stands in several rows (AVE
has 45) is several items of one file, `<id>`, `<id>@2`, ... in the order of Annotations.txt.
Some of AVE's ids lie in two splits; that is how it was published, and how it is scored.
Whether the mp4 files are there is for extraction to find out.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from difflib import get_close_matches

from distributed_avel.artifacts import Location
from distributed_avel.config import DataConfig
from distributed_avel.datasets.base import Span, Split, Video, VideoSet, register_dataset
from distributed_avel.errors import ArtifactError, DatasetError
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
"""AVE's classes in the order of the columns of its published labels; the next is background."""

ANNOTATIONS = "Annotations.txt"
SPLIT_FILES: dict[Split, str] = {
    "train": "trainSet.txt",
    "val": "valSet.txt",
    "test": "testSet.txt",
}
EVENT_FREE = "eventFreeSet.txt"
MEDIA_FOLDER = "AVE"

# With this many of AVE's classes a folder is AVE, and one that AVE does not have is a slip.
_SURELY_AVE = 14


@register_dataset("ave")
def load_ave(config: DataConfig, root: Location) -> VideoSet:
    """The videos below `root`.

    Raises:
        DatasetError: A file is missing or a line cannot be used; names both and the remedy.
    """
    return read_layout(config, root, name=config.dataset, synthetic=False)


def read_layout(config: DataConfig, root: Location, *, name: str, synthetic: bool) -> VideoSet:
    """Any data set in AVE's layout. Classes are AVE's, or else the categories, sorted."""
    rows = _annotations(root / ANNOTATIONS)
    classes = class_list(rows, root / ANNOTATIONS)
    videos = []
    for row, split in _splits(rows, root):
        label = classes.index(row.category)
        spans = (Span(label, row.start_s, row.end_s),) if row.end_s > row.start_s else ()
        videos.append(_video(row.item_id, row.video_id, split, (label,), spans, root, row.where))
    annotated = {row.video_id for row in rows}
    for where, video_id in _event_free(root / EVENT_FREE):
        if video_id in annotated:
            raise DatasetError(
                f"{where}: {video_id!r} has an event in {ANNOTATIONS}; remove it from one of them"
            )
        videos.append(_video(video_id, video_id, "train", (), (), root, where))
    return VideoSet(
        name=name,
        classes=classes,
        timeline=Timeline(num_segments=config.num_segments, segment_s=config.segment_s),
        videos=tuple(videos),
        synthetic=synthetic,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One line of Annotations.txt; `where` names file and line, for messages."""

    item_id: str
    video_id: str
    category: str
    start_s: float
    end_s: float
    where: str

    @property
    def facts(self) -> tuple[str, str, float, float]:
        """What a line of a split file repeats."""
        return self.category, self.video_id, self.start_s, self.end_s


def class_list(rows: list[Row], annotations: Location) -> tuple[str, ...]:
    """AVE's classes where all categories are among them, else the categories, sorted.

    Raises:
        DatasetError: Many of AVE's categories, and one that it does not have.
    """
    categories = {row.category for row in rows}
    unknown = categories.difference(AVE_CLASSES)
    if not unknown:
        return AVE_CLASSES
    if len(categories) - len(unknown) >= _SURELY_AVE:
        where, category = next((r.where, r.category) for r in rows if r.category in unknown)
        near = get_close_matches(category, AVE_CLASSES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DatasetError(f"{where}: unknown category {category!r}, not one of AVE's 28{hint}")
    if not categories:
        raise DatasetError(f"{annotations}: no annotation in the file")
    return tuple(sorted(categories))


def _video(item_id, video_id, split, labels, spans, root, where) -> Video:
    uri = f"{MEDIA_FOLDER}/{video_id}.mp4"
    try:
        _ = root / uri
    except ArtifactError:
        raise DatasetError(f"{where}: {video_id!r} cannot be the name of a file") from None
    return Video(video_id=item_id, uri=uri, split=split, labels=labels, spans=spans)


def _annotations(file: Location) -> list[Row]:
    rows, count = [], defaultdict(int)
    for where, fields in _lines(file):
        category, video_id, start_s, end_s = _parse(where, fields)
        count[video_id] += 1
        item_id = video_id if count[video_id] == 1 else f"{video_id}@{count[video_id]}"
        rows.append(Row(item_id, video_id, category, start_s, end_s, where))
    return rows


def _splits(rows: list[Row], root: Location) -> list[tuple[Row, Split]]:
    """The rows that the split files name, each with its split, in the order of those files."""
    by_id: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_id[row.video_id].append(row)
    chosen: dict[str, tuple[Row, Split]] = {}
    for split, name in SPLIT_FILES.items():
        num_before = len(chosen)
        for where, fields in _lines(root / name):
            video_id = fields[0] if len(fields) == 1 else _parse(where, fields)[1]
            if video_id not in by_id:
                raise DatasetError(
                    f"{where}: {video_id!r} has no line in {ANNOTATIONS}; add one, or list "
                    f"a training video without an event in {EVENT_FREE}"
                )
            named = by_id[video_id]
            if len(fields) > 1:
                # Lines that are the same twice are two items: take the first that is left.
                named = [row for row in named if row.facts == _parse(where, fields)]
                named = [row for row in named if row.item_id not in chosen][:1] or named[:1]
                if not named:
                    raise DatasetError(
                        f"{where}: {ANNOTATIONS} knows {video_id!r} with another category or "
                        f"span; both files must say the same"
                    )
            for row in named:
                if row.item_id in chosen:
                    raise DatasetError(
                        f"{where}: {video_id!r} is in {SPLIT_FILES[chosen[row.item_id][1]]} "
                        f"already; a row belongs to one split, once"
                    )
                chosen[row.item_id] = (row, split)
        if len(chosen) == num_before:
            raise DatasetError(f"{root / name}: names no video; every split needs one")
    return list(chosen.values())


def _event_free(file: Location) -> list[tuple[str, str]]:
    if not file.exists():
        return []
    ids = []
    for where, fields in _lines(file):
        if len(fields) > 1:
            raise DatasetError(f"{where}: expected a video id alone, got {'&'.join(fields)!r}")
        ids.append((where, fields[0]))
    return ids


def _lines(file: Location) -> list[tuple[str, list[str]]]:
    """Lines that say something, cut into fields, each with file and number; no header."""
    if not file.exists():
        raise DatasetError(
            f"{file}: no such file; data.root must be the folder that holds {ANNOTATIONS}, "
            f"{', '.join(SPLIT_FILES.values())} and {MEDIA_FOLDER}/"
        )
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: not UTF-8 ({error.reason} at byte {error.start})") from None
    lines = [
        (f"{file}:{number}", [field.strip() for field in line.split("&")])
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    return lines[1:] if lines and _is_header(lines[0][1]) else lines


def _is_header(fields: list[str]) -> bool:
    """Whether the first line names columns: no digit where the times stand, or "video id"."""
    if len(fields) == 1:
        return fields[0].lower().replace(" ", "").replace("_", "") == "videoid"
    return len(fields) == 5 and not any(c.isdigit() for field in fields[3:] for c in field)


def _parse(where: str, fields: list[str]) -> tuple[str, str, float, float]:
    """Category, video id, start and end of one line."""
    if len(fields) != 5:
        raise DatasetError(
            f"{where}: expected category&video id&quality&start&end, got {len(fields)} field(s)"
        )
    category, video_id, _, *times = fields
    if not category or not video_id:
        raise DatasetError(f"{where}: the {'video id' if category else 'category'} is empty")
    try:
        start_s, end_s = map(float, times)
    except ValueError:
        raise DatasetError(
            f"{where}: start and end must be numbers of seconds, got {'&'.join(times)!r}"
        ) from None
    if not (math.isfinite(end_s) and 0 <= start_s <= end_s):
        raise DatasetError(
            f"{where}: start must lie between 0 and end, got start {times[0]} and end {times[1]}"
        )
    return category, video_id, start_s, end_s
