"""The prediction for one video: probabilities of its segments, and events with their times.

Shape suffixes: M = segments of the video, K = columns of labels (see `tasks.Task`).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distributed_avel.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

EVENT_COLUMNS = {
    "video": "object",
    "label": "object",
    "modality": "object",
    "start_s": "float64",
    "end_s": "float64",
    "confidence": "float64",
}
"""Columns of a table of events, and their types in pandas."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event in a video.

    Args:
        label: Name of the class.
        modality: "audio-visual" for localization; "audio" or "visual" for parsing.
        start_s: Start, in seconds from the start of the video.
        end_s: End, in seconds.
        confidence: Mean probability of the class over the segments of the event, in [0, 1].
    """

    label: str
    modality: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Column:
    """Class and modality of a column of `Prediction.probabilities`."""

    label: str
    modality: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The prediction for one video.

    Args:
        video: The file, as it was named.
        segment_s: Length of a segment, in seconds.
        columns: Class and modality of each column, without background.
        probabilities: Shape (M, K) with `len(columns)` columns, and one of background at the end
            if the task is localization.
        predicted: Which columns are predicted in each segment, of the same shape.
        note: What part of the file is not predicted, and why; empty if none is.
    """

    video: str
    segment_s: float
    columns: tuple[Column, ...]
    probabilities: NDArray[np.float32]
    predicted: NDArray[np.bool_]
    note: str = ""

    @property
    def num_segments(self) -> int:
        """M, the number of segments."""
        return len(self.probabilities)

    @property
    def events(self) -> list[Event]:
        """The events: maximal runs of segments with the same class, by start time."""
        events = []
        for number, column in enumerate(self.columns):
            for start, end in _runs(self.predicted[:, number]):
                events.append(
                    Event(
                        label=column.label,
                        modality=column.modality,
                        start_s=start * self.segment_s,
                        end_s=end * self.segment_s,
                        confidence=float(self.probabilities[start:end, number].mean()),
                    )
                )
        return sorted(events, key=lambda event: (event.start_s, event.end_s, event.label))

    def to_dataframe(self) -> "pd.DataFrame":
        """The events as a table: video, label, modality, start_s, end_s, confidence."""
        import pandas as pd

        rows = [{"video": self.video, **asdict(event)} for event in self.events]
        return pd.DataFrame(rows, columns=list(EVENT_COLUMNS)).astype(EVENT_COLUMNS)

    def segments_dataframe(self) -> "pd.DataFrame":
        """A row per segment, class and modality: its times, and its probability."""
        import pandas as pd

        count = len(self.columns)
        starts_M = np.arange(self.num_segments) * self.segment_s
        return pd.DataFrame(
            {
                "video": self.video,
                "start_s": np.repeat(starts_M, count),
                "end_s": np.repeat(starts_M + self.segment_s, count),
                "label": [column.label for column in self.columns] * self.num_segments,
                "modality": [column.modality for column in self.columns] * self.num_segments,
                "probability": self.probabilities[:, :count].reshape(-1),
                "is_predicted": self.predicted[:, :count].reshape(-1),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Events and probabilities as plain values."""
        return {
            "video": self.video,
            "segment_s": self.segment_s,
            "note": self.note,
            "events": [asdict(event) for event in self.events],
            "columns": [asdict(column) for column in self.columns],
            "probabilities": self.probabilities[:, : len(self.columns)].tolist(),
        }

    def plot(self, axes: "Axes | None" = None) -> "Axes":
        """Plot the probability of each predicted class over time, with its events as bars.

        Args:
            axes: Axes of matplotlib to draw on; new ones by default.

        Returns:
            The axes.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        try:
            import matplotlib.pyplot as plt
        except ModuleNotFoundError:
            raise ConfigError(
                "plot: matplotlib is not installed; install it, or the extra `plot` of this package"
            ) from None
        if axes is None:
            _, axes = plt.subplots(figsize=(10, 3), layout="constrained")
        times_s = np.arange(self.num_segments + 1) * self.segment_s
        for number, column in enumerate(self.columns):
            if not self.predicted[:, number].any():
                continue
            name = label_name(column.label, column.modality)
            (line,) = axes.step(
                times_s, np.append(self.probabilities[:, number], self.probabilities[-1, number]),
                where="post", label=name,
            )  # fmt: skip
            runs = [(start * self.segment_s, (end - start) * self.segment_s)
                    for start, end in _runs(self.predicted[:, number])]  # fmt: skip
            axes.broken_barh(runs, (0, 1), color=line.get_color(), alpha=0.15)
        axes.set(xlim=(0, times_s[-1]), ylim=(0, 1), xlabel="time (s)", ylabel="probability")
        axes.set_title(self.video)
        if axes.lines:
            axes.legend(loc="upper right")
        return axes

    def save_vtt(self, path: str | Path) -> None:
        """Write the events as WebVTT subtitles."""
        Path(path).write_text(to_vtt(self.events), encoding="utf-8")


def label_name(label: str, modality: str) -> str:
    """Name of a class where there are no modalities, such as `dog` or `dog (audio)`."""
    return label if modality == "audio-visual" else f"{label} ({modality})"


def to_vtt(events: Sequence[Event]) -> str:
    """Events as WebVTT subtitles, which browsers show over a video."""
    cues = [
        f"{_clock(e.start_s, '.')} --> {_clock(e.end_s, '.')}\n{_escaped(_caption(e))}\n"
        for e in events
    ]
    return "\n".join(["WEBVTT\n", *cues])


def to_srt(events: Sequence[Event]) -> str:
    """Events as SubRip subtitles.

    Players take `<…>` for markup, and the format has no escapes; it is replaced by `‹…›`.
    """
    cues = [
        f"{number}\n{_clock(e.start_s, ',')} --> {_clock(e.end_s, ',')}\n"
        f"{_caption(e).replace('<', '‹').replace('>', '›')}\n"
        for number, e in enumerate(events, start=1)
    ]
    return "\n".join(cues)


def to_audacity(events: Sequence[Event]) -> str:
    """Events as a label track of Audacity: start, end and text, separated by tabs."""
    return "".join(f"{e.start_s:.6f}\t{e.end_s:.6f}\t{_caption(e)}\n" for e in events)


def to_json_text(predictions: Sequence[Prediction]) -> str:
    """Predictions of several videos as JSON."""
    return json.dumps([prediction.to_json() for prediction in predictions], indent=1) + "\n"


def _caption(event: Event) -> str:
    suffix = "" if event.modality == "audio-visual" else f" ({event.modality})"
    label = " ".join(event.label.split())  # a line break would end the caption
    return f"{label}{suffix} {event.confidence:.0%}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, mark: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{mark}{milliseconds:03d}"


def _runs(present_M: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Start and end (exclusive) of each maximal run of True."""
    padded = np.concatenate([[False], present_M, [False]]).astype(np.int8)
    changes = np.flatnonzero(np.diff(padded))
    yield from zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True)
