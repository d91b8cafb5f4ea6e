"""The page of predictions (`events.html`): events of each video beside the video itself.

Shape suffixes: M = segments of the video, K = columns of labels (see `tasks.Task`).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import numpy as np

from distributed_avel.errors import AvelError
from distributed_avel.media.files import opened_file
from distributed_avel.predict.model_folder import ModelSettings
from distributed_avel.predict.prediction import Prediction
from distributed_avel.redaction import redact
from distributed_avel.report.page_data import BACKGROUND, Pictures
from distributed_avel.report.pictures import key_frame_pictures, pictures_of
from distributed_avel.report.templates import render
from distributed_avel.report.timelines import (
    Bar,
    Drawing,
    Key,
    Lane,
    LaneRow,
    class_hue,
    frame_uris,
    sound_drawing,
    split_runs,
    step_path,
    time_span,
)
from distributed_avel.report.video_list import ListedVideo, ListPart, VideoList, listed_page_files
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline

EVENTS_PAGE = "events.html"

MAX_PICTURED = 20
"""Videos with pictures: they are decoded again for the page."""

MAX_DECODED_S = 120.0
"""Longest video that is decoded whole for its pictures. Of a longer one, key frames are shown."""

_NUM_FRAMES = 12
_COLUMNS = ("number of events", "highest confidence", "length")


@dataclass(frozen=True, kw_only=True, slots=True)
class _ClassTotal:
    """Predicted events of one class."""

    name: str
    num_events: int
    num_videos: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _EventsReport:
    """Data of the template, apart from the list."""

    settings: ModelSettings
    num_videos: int
    num_events: int
    totals: Sequence[_ClassTotal]
    failures: Sequence[str]
    synthetic: bool = False  # the videos are the user's


def write_events_page(
    predictions: Sequence[Prediction],
    failures: Sequence[str],
    out: Location,
    settings: ModelSettings,
) -> None:
    """Write the page of predictions, which plays the videos.

    Args:
        predictions: One per video.
        failures: Reasons of the files that failed.
        out: Folder of the page.
        settings: Those of the model.
    """
    for name, content in events_page(predictions, failures, out, settings).items():
        (out / name).write_bytes(content.encode())


def events_page(
    predictions: Sequence[Prediction],
    failures: Sequence[str],
    out: Location,
    settings: ModelSettings,
) -> dict[str, str]:
    """Return the page of predictions and the files that belong to it, by their paths.

    Arguments are those of `write_events_page`.
    """
    hues = {name: class_hue(number) for number, name in enumerate(settings.classes)}
    # finer than a segment of the training if there is a hop
    resolution_s = predictions[0].segment_s if predictions else settings.segment_s
    videos = VideoList(
        videos=[
            _listed(
                prediction,
                hues,
                out,
                _pictures(prediction, settings) if number < MAX_PICTURED else Pictures(),
            )
            for number, prediction in enumerate(predictions)
        ],
        columns=_COLUMNS,
        segment_s=resolution_s,
        synthetic=False,
        first_order="as predicted",
        is_located=True,
    )
    report = _EventsReport(
        settings=settings,
        num_videos=len(predictions),
        num_events=sum(len(prediction.events) for prediction in predictions),
        totals=_totals(predictions, settings.classes),
        failures=[redact(failure) for failure in failures],
    )
    return listed_page_files(EVENTS_PAGE, videos, partial(_render, report))


def _render(report: _EventsReport, videos: ListPart) -> str:
    sections = [("timelines", "Videos"), ("classes", "Classes"), ("failures", "Failures")]
    return render("events.html", report, videos=videos, sections=sections)


def _listed(
    prediction: Prediction, hues: dict[str, int], out: Location, pictures: Pictures
) -> ListedVideo:
    events = prediction.events
    labels = tuple(dict.fromkeys(event.label for event in events))
    name = redact(prediction.video)
    return ListedVideo(
        drawing=Drawing(
            video_id=name,
            num_segments=prediction.num_segments,
            keys=tuple(Key(name=label, hue=hues[label], present=True) for label in labels),
            frames=frame_uris(pictures.frames, name),
            lanes=_lanes(prediction, hues),
            sound=None if pictures.sound is None else sound_drawing(pictures.sound),
        ),
        labels=labels,
        values=(
            float(len(events)),
            max((event.confidence for event in events), default=None),
            prediction.num_segments * prediction.segment_s,
        ),
        media=media_address(prediction.video, out),
        note=prediction.note,
    )


def media_address(video: str, out: Location) -> str | None:
    """Return the address of a media file for a page in `out`, URL-quoted.

    Returns:
        A path relative to the page, or an address of the web; None if a browser cannot open it.
    """
    if video.startswith(("http://", "https://")):
        return quote(video, safe=":/?&=%#~+,;@!$'()*[]")
    if video.startswith("file://"):
        video = unquote(urlsplit(video).path)
    if "://" in video or not out.is_local:
        return None
    path = Path(video).expanduser().absolute()
    return quote(os.path.relpath(path, out.path).replace(os.sep, "/"))


def _pictures(prediction: Prediction, settings: ModelSettings) -> Pictures:
    """Return the pictures of a video; none if it cannot be read once more."""
    # Segments of the training, because half of one may be missing, also if there is a hop.
    duration_s = prediction.num_segments * prediction.segment_s
    num_segments = max(1, round(duration_s / settings.segment_s))
    timeline = Timeline(num_segments=num_segments, segment_s=settings.segment_s)
    try:
        location = Location.at(prediction.video)
        if timeline.duration_s <= MAX_DECODED_S:
            return pictures_of(location.read_bytes(), timeline, max_frames=_NUM_FRAMES)
        if not location.is_local:
            return Pictures()  # it would be copied here
        with opened_file(location) as media:
            return key_frame_pictures(media, timeline.duration_s, _NUM_FRAMES)
    except (AvelError, OSError):  # the events are there without them
        return Pictures()


def _lanes(prediction: Prediction, hues: dict[str, int]) -> tuple[Lane, ...]:
    modalities = dict.fromkeys(column.modality for column in prediction.columns)
    if [*modalities] == ["audio-visual"]:
        return (_single_lane(prediction, hues),)
    return tuple(
        Lane(name=modality, rows=_class_rows(prediction, modality, hues)) for modality in modalities
    )


def _single_lane(prediction: Prediction, hues: dict[str, int]) -> Lane:
    """Draw localization: each segment has one class, and background is the last column."""
    classes_M = prediction.predicted.argmax(axis=1)
    return Lane(
        name="events",
        rows=(
            LaneRow(
                bars=tuple(
                    _bar(prediction, column, first, end, hues)
                    for first, end, column in split_runs(classes_M)
                )
            ),
        ),
        probability=step_path(1 - prediction.probabilities[:, -1]),
    )


def _class_rows(prediction: Prediction, modality: str, hues: dict[str, int]) -> tuple[LaneRow, ...]:
    """Draw parsing: a row for each class that is predicted, or one row "no event"."""
    rows = []
    for number, column in enumerate(prediction.columns):
        predicted_M = prediction.predicted[:, number]
        if column.modality == modality and predicted_M.any():
            runs = [(a, b) for a, b, value in split_runs(predicted_M.astype(np.int8)) if value]
            bars = tuple(_bar(prediction, number, first, end, hues) for first, end in runs)
            rows.append(LaneRow(bars=bars))
    end = prediction.num_segments
    span = time_span(0, end, prediction.segment_s)
    no_event = Bar(name="no event", hue=None, first=0, end=end, span=span)
    return tuple(rows) or (LaneRow(bars=(no_event,)),)


def _bar(prediction: Prediction, number: int, first: int, end: int, hues: dict[str, int]) -> Bar:
    is_event = number < len(prediction.columns)
    name = prediction.columns[number].label if is_event else BACKGROUND
    return Bar(
        name=name,
        hue=hues[name] if is_event else None,
        first=first,
        end=end,
        span=time_span(first, end, prediction.segment_s),
        confidence=float(prediction.probabilities[first:end, number].mean()),
    )


def _totals(predictions: Sequence[Prediction], classes: Sequence[str]) -> list[_ClassTotal]:
    """Return the totals of the classes, the most frequent first."""
    events = [(number, event) for number, made in enumerate(predictions) for event in made.events]
    totals = []
    for name in classes:
        mine = [(number, event) for number, event in events if event.label == name]
        totals.append(
            _ClassTotal(
                name=name,
                num_events=len(mine),
                num_videos=len({number for number, _ in mine}),
                seconds=sum(event.end_s - event.start_s for _, event in mine),
            )
        )
    return sorted(totals, key=lambda total: -total.num_events)
