"""LLP, the data set of audio-visual video parsing: `llp` (videos) and `llp_features`.

    <root>/AVVP_train.csv           filename, event_labels (with commas): 10000 training videos
    <root>/AVVP_val_pd.csv          the same: 649 validation videos
    <root>/AVVP_test_pd.csv         the same: 1200 test videos
    <root>/AVVP_eval_audio.csv      filename, onset, offset, event_labels: audible events
    <root>/AVVP_eval_visual.csv     the same: visible events

Fields are separated by tabs. A file name is `<id>_<start>_<end>`: an excerpt of ten seconds of a
YouTube video; LLP has at most one excerpt per video. `llp` reads the videos, `llp_features` the
published features:

    <root>/video/<id>.mp4           or <root>/LLP_dataset/video/<id>.mp4
    <root>/vggish/<id>.npy          (10, 128), audio; or <root>/feats/vggish/<id>.npy, etc.
    <root>/res152/<id>.npy          (80, 2048), eight frames per second
    <root>/r2plus1d_18/<id>.npy     (10, 512), motion

Only validation and test videos have segment labels, separately for audio and visual events; an
event is audio-visual where it is both. The published files contain events that end at or before
their start, and events of videos that are in no split. The reader ignores them, as the authors'
evaluation does; `avel check` reports them.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from distributed_avel.config import DataConfig
from distributed_avel.datasets.base import Span, Split, Video, VideoSet, register_dataset
from distributed_avel.datasets.names import nearest
from distributed_avel.datasets.problems import Problems
from distributed_avel.datasets.text import parse_seconds, read_lines
from distributed_avel.errors import ArtifactError, DatasetError
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline

LLP_CLASSES = (
    "Speech",
    "Car",
    "Cheering",
    "Dog",
    "Cat",
    "Frying_(food)",
    "Basketball_bounce",
    "Fire_alarm",
    "Chainsaw",
    "Cello",
    "Banjo",
    "Singing",
    "Chicken_rooster",
    "Violin_fiddle",
    "Vacuum_cleaner",
    "Baby_laughter",
    "Accordion",
    "Lawn_mower",
    "Motorcycle",
    "Helicopter",
    "Acoustic_guitar",
    "Telephone_bell_ringing",
    "Baby_cry_infant_cry",
    "Blender",
    "Clapping",
)
"""Classes of LLP in the order of the authors' data loader and of the outputs of their published
weights; there is no background."""

SPLIT_FILES: dict[Split, str] = {
    "train": "AVVP_train.csv",
    "val": "AVVP_val_pd.csv",
    "test": "AVVP_test_pd.csv",
}
AUDIO_EVENTS, VISUAL_EVENTS = "AVVP_eval_audio.csv", "AVVP_eval_visual.csv"

_SplitRow = tuple[str, str, Split, tuple[int, ...]]


@register_dataset("llp")
def load_llp(config: DataConfig, root: Location, problems: Problems) -> VideoSet:
    """Return the videos below `root`.

    Raises:
        DatasetError: A file is missing; the message names it and the remedy.
    """
    folder = first_folder(root, "video", "LLP_dataset/video")
    return read_llp(config, root, problems, folder=folder, ending="mp4")


def read_llp(
    config: DataConfig, root: Location, problems: Problems, *, folder: str, ending: str
) -> VideoSet:
    """Read LLP's annotations; `<folder>/<id>.<ending>` is the file of a video."""
    rows = _splits(root, problems)
    names = {name for name, *_ in rows}
    timeline = Timeline(num_segments=config.num_segments, segment_s=config.segment_s)
    audio_events = _events(root / AUDIO_EVENTS, names, timeline, problems)
    visual_events = _events(root / VISUAL_EVENTS, names, timeline, problems)
    _refuse_unannotated(rows, {*audio_events, *visual_events}, problems)
    videos = []
    name_of: dict[str, str] = {}
    for name, where, split, labels in rows:
        uri = f"{folder}/{file_id(name)}.{ending}"
        if name_of.setdefault(uri, name) != name:
            problems.error(
                f"{where}: {name!r} and {name_of[uri]!r} are excerpts of one video and share the "
                f"file {uri}; keep one of them"
            )
            continue
        try:
            _ = root / uri
        except ArtifactError:
            problems.error(f"{where}: {name!r} is not a valid file name")
            continue
        problems.places[name] = where
        annotated = split != "train" or name in audio_events or name in visual_events
        audio, visual = tuple(audio_events[name]), tuple(visual_events[name])
        videos.append(
            Video(
                video_id=name,
                uri=uri,
                split=split,
                labels=labels,
                spans=overlaps(audio, visual) if annotated else None,
                audio_spans=audio if annotated else None,
                visual_spans=visual if annotated else None,
            )
        )
    return VideoSet(
        name=config.dataset,
        classes=LLP_CLASSES,
        timeline=timeline,
        videos=tuple(videos),
        synthetic=False,
    )


def _refuse_unannotated(rows: list[_SplitRow], annotated: set[str], problems: Problems) -> None:
    """Report a split without any event: all its segments would count as background."""
    for split in ("val", "test"):
        names = {name for name, _, of_row, _ in rows if of_row == split}
        if names and names.isdisjoint(annotated) and not problems.errors:
            problems.error(
                f"{SPLIT_FILES[split]}: none of its videos has an event in {AUDIO_EVENTS} or "
                f"{VISUAL_EVENTS}; use all files of the same release, with the same video names"
            )


def first_folder(root: Location, *names: str) -> str:
    """Return the first of these folders that exists, or the first if none does."""
    return next((name for name in names if (root / name).exists()), names[0])


def file_id(name: str) -> str:
    """Return the YouTube id of a video name: `CaC2xvdLC34` for `CaC2xvdLC34_250_260`."""
    return name.rsplit("_", 2)[0]


def overlaps(audio: Iterable[Span], visual: Iterable[Span]) -> tuple[Span, ...]:
    """Return the spans in which each event is both audible and visible, by class and time."""
    audio_by_label, visual_by_label = _merged(audio), _merged(visual)
    both = []
    for label in sorted(audio_by_label.keys() & visual_by_label.keys()):
        for a in audio_by_label[label]:
            for v in visual_by_label[label]:
                start_s, end_s = max(a.start_s, v.start_s), min(a.end_s, v.end_s)
                if start_s < end_s:
                    both.append(Span(label, start_s, end_s))
    return tuple(both)


def _merged(spans: Iterable[Span]) -> dict[int, list[Span]]:
    """Return the spans of each class in order, with touching spans joined."""
    merged: dict[int, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda s: (s.label, s.start_s)):
        spans_of_class = merged[span.label]
        if spans_of_class and span.start_s <= spans_of_class[-1].end_s:
            end_s = max(spans_of_class[-1].end_s, span.end_s)
            spans_of_class[-1] = Span(span.label, spans_of_class[-1].start_s, end_s)
        else:
            spans_of_class.append(span)
    return merged


def _splits(root: Location, problems: Problems) -> list[_SplitRow]:
    """Return name, file and line, split and labels of each video, in the order of the files."""
    rows: list[_SplitRow] = []
    places: dict[str, str] = {}
    for split, file_name in SPLIT_FILES.items():
        num_before = len(rows)
        for where, (name, names) in _rows(root / file_name, 2, problems):
            with problems.collect():
                if name in places:
                    raise DatasetError(
                        f"{where}: {name!r} is already in {places[name]}; list each video only "
                        f"once, in one split"
                    )
                labels = _labels(where, names, problems)
                places[name] = where
                rows.append((name, where, split, labels))
        if len(rows) == num_before and not problems.errors:
            problems.error(f"{root / file_name}: lists no video; every split needs at least one")
    return rows


def _labels(where: str, names: str, problems: Problems) -> tuple[int, ...]:
    labels: list[int] = []
    for name in (part.strip() for part in names.split(",")):
        label = _label(where, name)
        if label in labels:
            problems.oddity("label twice", where, f"label {name!r} appears twice")
        else:
            labels.append(label)
    return tuple(labels)


def _label(where: str, name: str) -> int:
    if name not in LLP_CLASSES:
        near = nearest(name, LLP_CLASSES)
        hint = f"; did you mean {near!r}?" if near else ""
        raise DatasetError(f"{where}: unknown event {name!r}, not one of LLP's 25{hint}")
    return LLP_CLASSES.index(name)


def _events(
    file: Location, names: set[str], timeline: Timeline, problems: Problems
) -> dict[str, list[Span]]:
    """Return the events of each video in one modality, in the order of the file."""
    events: dict[str, list[Span]] = defaultdict(list)
    for where, (name, onset, offset, label_name) in _rows(file, 4, problems):
        with problems.collect():
            span = Span(_label(where, label_name), *_times(where, onset, offset))
            event = f"{name}: {label_name} from {onset} to {offset} s"
            if name not in names:
                problems.oddity("unknown video", where, f"{event}: this video is in no split")
            elif span.start_s > span.end_s:
                problems.oddity("offset before onset", where, f"{event}, ignored")
            elif span.start_s == span.end_s:
                problems.oddity("empty span", where, f"{event}, ignored")
            elif span in events[name]:
                problems.oddity("event twice", where, f"{event} appears twice")
            else:
                events[name].append(span)
    if not events and not problems.errors:
        problems.error(
            f"{file}: has no event of any video in the splits; use all files of the same release, "
            f"with the same video names"
        )
    return events


def _times(where: str, onset: str, offset: str) -> tuple[float, float]:
    try:
        start_s, end_s = parse_seconds(onset), parse_seconds(offset)
    except ValueError:
        start_s = end_s = math.nan
    if not (0 <= start_s < math.inf and 0 <= end_s < math.inf):
        raise DatasetError(
            f"{where}: onset and offset must be seconds from the start of the video, got "
            f"{onset!r} and {offset!r}"
        )
    return start_s, end_s


def _rows(file: Location, num_fields: int, problems: Problems) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows below the header, each with file and line."""
    if not file.exists():
        raise DatasetError(
            f"{file}: no such file; data.root must be the folder that contains "
            f"{', '.join([*SPLIT_FILES.values(), AUDIO_EVENTS, VISUAL_EVENTS])}"
        )
    for number, line in enumerate(read_lines(file), start=1):
        fields = [field.strip() for field in line.split("\t")]
        if not line.strip() or (number == 1 and fields[0] == "filename"):
            continue
        if len(fields) != num_fields or not all(fields):
            problems.error(
                f"{file}:{number}: expected {num_fields} non-empty fields separated by tabs, got "
                f"{line.strip()!r}"
            )
        else:
            yield f"{file}:{number}", fields
