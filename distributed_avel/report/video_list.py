"""The data of a page's list of videos, which `videos.js` searches, sorts and draws.

A list of few videos is embedded into the page. Of a longer one, the page holds a row per video, to
search and sort, and the timelines are in files beside the page that are loaded when they are shown.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup

from distributed_avel.report.timelines import Drawing, LaneRow, time_ticks
from distributed_avel.timeline import Timeline

MAX_EMBEDDED = 500
"""Videos whose timelines are embedded into a page with data files; a single file embeds all."""

VIDEOS_PER_FILE = 100


@dataclass(frozen=True, kw_only=True)
class ListedVideo:
    """A video of the list.

    Args:
        drawing: Its timeline.
        labels: Names of the classes to search for.
        values: Numbers to sort by, one per column of the list; None if undefined.
        media: Address of the media file, URL-quoted; relative to the folder of the media files or,
            if the list `is_located`, to the page. None if a page cannot play it.
        note: Remark below the timeline.
    """

    drawing: Drawing
    labels: tuple[str, ...]
    values: tuple[float | None, ...]
    media: str | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class VideoList:
    """A list of videos.

    Args:
        videos: In the order in which they are shown first.
        columns: Names of the values to sort by.
        segment_s: Length of a segment.
        synthetic: Whether the data were generated.
        first_order: Name of the order of `videos`.
        is_located: Whether addresses of media files are relative to the page.
    """

    videos: Sequence[ListedVideo]
    columns: tuple[str, ...]
    segment_s: float
    synthetic: bool
    first_order: str
    is_located: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ListPart:
    """What a page needs to show a list: its JSON, its script, and what its policy allows.

    Args:
        json: Data, safe in a script element.
        script: The program, safe in a script element.
        policy: Further directives of the content security policy.
        first_order: See `VideoList`.
        count: Number of videos.
    """

    json: Markup
    script: Markup
    policy: str
    first_order: str
    count: int


class VideoListData:
    """The JSON of a list, embedded or in files."""

    def __init__(self, videos: VideoList) -> None:
        self._videos = videos
        self._names: dict[tuple[str, int | None], int] = {}
        self._lanes: dict[str, int] = {}
        self._details = [self._detail(video) for video in videos.videos]

    def part(self, files: Sequence[str] = (), single: str = "") -> ListPart:
        """Prepare the list for a page.

        Args:
            files: Addresses of the data files, relative to the page; none to embed the timelines.
            single: Name of a page with everything embedded, for messages.
        """
        videos = self._videos.videos
        hues = {key.name: key.hue for video in videos for key in video.drawing.keys}
        rows = [
            [
                video.drawing.video_id,
                [self._name(label, hues.get(label)) for label in video.labels],
                [None if value is None else round(value, 4) for value in video.values],
                video.drawing.num_segments,
                video.media,
            ]
            for video in videos
        ]
        segment_s = self._videos.segment_s
        data = {
            "names": list(self._names),
            "lanes": list(self._lanes),
            "columns": self._videos.columns,
            "segment_s": segment_s,
            "synthetic": self._videos.synthetic,
            "is_located": self._videos.is_located,
            "ticks": {
                length: time_ticks(Timeline(num_segments=length, segment_s=segment_s))
                for length in sorted({video.drawing.num_segments for video in videos})
            },
            "videos": rows,
            "details": None if files else self._details,
            "files": list(files),
            "per_file": VIDEOS_PER_FILE,
            "single": single,
        }
        script = _script()
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        own_files = " 'self'" if files else ""
        sources = sorted({_source(video.media) for video in videos if video.media is not None})
        return ListPart(
            json=Markup(_json(data)),
            script=Markup(script),
            policy=(
                f"; script-src 'sha256-{digest}'{own_files}"
                f"; media-src {' '.join(sources or [_NONE])}"
            ),
            first_order=self._videos.first_order,
            count=len(videos),
        )

    def files(self, folder: str) -> Iterator[tuple[str, str]]:
        """Yield the addresses, relative to the page, and the contents of the data files.

        Args:
            folder: Name of their folder, beside the page.
        """
        for number, start in enumerate(range(0, len(self._details), VIDEOS_PER_FILE)):
            chunk = self._details[start : start + VIDEOS_PER_FILE]
            yield f"{folder}/{number:04d}.js", f"avelVideos({number}, {_json(chunk)});\n"

    def _detail(self, video: ListedVideo) -> dict[str, Any]:
        drawing = video.drawing
        detail: dict[str, Any] = {
            "keys": [[self._name(key.name, key.hue), int(key.present)] for key in drawing.keys],
            "lanes": [
                [
                    self._lanes.setdefault(lane.name, len(self._lanes)),
                    lane.num_right,
                    lane.probability,
                    [self._row(row) for row in lane.rows],
                ]
                for lane in drawing.lanes
            ],
        }
        if drawing.frames or drawing.sound:
            detail["pictures"] = {"frames": drawing.frames}
            if drawing.sound:
                detail["pictures"] |= {
                    "waveform": drawing.sound.waveform,
                    "columns": drawing.sound.num_columns,
                    "mel": drawing.sound.log_mel,
                }
        if video.note:
            detail["note"] = video.note
        return detail

    def _row(self, row: LaneRow) -> list[Any]:
        bars = [
            [
                self._name(bar.name, bar.hue),
                bar.first,
                bar.end,
                _ERRORS.index(bar.error),
                *([] if bar.confidence is None else [round(bar.confidence, 3)]),
            ]
            for bar in row.bars
        ]
        return [bars, row.wrong]

    def _name(self, name: str, hue: int | None) -> int:
        return self._names.setdefault((name, hue), len(self._names))


def listed_page_files(
    name: str, videos: VideoList, render_list: Callable[[ListPart], str]
) -> dict[str, str]:
    """Return a page with a list, and the files that belong to it, by their paths.

    Args:
        name: File name of the page, such as `report.html`. With more than `MAX_EMBEDDED` videos,
            its data files are in `report_videos`, and `report_single.html` embeds everything.
        videos: The list.
        render_list: Renders the page.
    """
    data = VideoListData(videos)
    if len(videos.videos) <= MAX_EMBEDDED:
        return {name: render_list(data.part())}
    stem = name.removesuffix(".html")
    files, single = dict(data.files(f"{stem}_videos")), f"{stem}_single.html"
    return {
        name: render_list(data.part(list(files), single)),
        single: render_list(data.part()),
        **files,
    }


_ERRORS = ("", "missed", "false positive")
"""Errors of bars by number, as in `videos.js`."""

_NONE = "'none'"


def _source(address: str) -> str:
    """Return the source expression that lets a page play media from an address."""
    scheme, mark, _ = address.partition("://")
    return f"{scheme}:" if mark else "'self'"


def _json(value: Any) -> str:
    """Format as JSON that can neither end a script element nor start a comment in one."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _script() -> str:
    return (
        resources.files("distributed_avel.report").joinpath("videos.js").read_text(encoding="utf-8")
    )
