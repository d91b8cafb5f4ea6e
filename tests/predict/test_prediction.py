"""Events from segment probabilities, and output formats."""

import json
import re
import shutil
import subprocess

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from distributed_avel.predict.prediction import (
    Column,
    Event,
    Prediction,
    to_audacity,
    to_json_text,
    to_srt,
    to_vtt,
)

matplotlib.use("Agg")

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def prediction(
    predicted_MC: np.ndarray,
    *,
    segment_s: float = 1.0,
    background: bool = False,
    video: str = "a.mp4",
    labels: tuple[str, ...] | None = None,
) -> Prediction:
    """Make a prediction in which all probabilities differ."""
    num_segments, num_columns = predicted_MC.shape
    rng = np.random.default_rng(num_segments * 100 + num_columns)
    size = (num_segments, num_columns + background)
    rest_M1 = ~predicted_MC.any(axis=1, keepdims=True)
    return Prediction(
        video=video,
        segment_s=segment_s,
        columns=tuple(
            Column(labels[k] if labels else f"class {k}", "audio-visual" if background else "audio")
            for k in range(num_columns)
        ),
        probabilities=rng.uniform(size=size).astype(np.float32),
        predicted=np.concatenate([predicted_MC, rest_M1], axis=1) if background else predicted_MC,
    )


@given(
    predicted_MC=arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)),
    segment_s=st.sampled_from([1.0, 0.5, 0.96, 2.5, 1 / 3]),
    background=st.booleans(),
)
def test_events_are_the_maximal_runs_of_each_column(predicted_MC, segment_s, background):
    made = prediction(predicted_MC, segment_s=segment_s, background=background)

    expected = set()
    for column in range(predicted_MC.shape[1]):
        start = None
        for segment in range(len(predicted_MC) + 1):
            is_inside = segment < len(predicted_MC) and predicted_MC[segment, column]
            if is_inside and start is None:
                start = segment
            if not is_inside and start is not None:
                expected.add((f"class {column}", start, segment))
                start = None
    found = {
        (e.label, round(e.start_s / segment_s), round(e.end_s / segment_s)) for e in made.events
    }
    assert found == expected
    assert len(made.events) == len(expected)
    assert [e.start_s for e in made.events] == sorted(e.start_s for e in made.events)
    for event in made.events:
        start, end = round(event.start_s / segment_s), round(event.end_s / segment_s)
        assert event.start_s == pytest.approx(start * segment_s, abs=1e-12)
        assert event.end_s == pytest.approx(end * segment_s, abs=1e-12)
        column = int(event.label.split()[1])
        mean = np.mean(made.probabilities[start:end, column].astype(np.float64))
        assert event.confidence == pytest.approx(mean, rel=1e-5)


def test_event_times_are_in_seconds_for_any_segment_length():
    made = prediction(np.array([[False], [True], [True], [False]]), segment_s=0.96)

    (event,) = made.events

    assert (event.start_s, event.end_s) == pytest.approx((0.96, 2.88))
    table = made.segments_dataframe()
    np.testing.assert_allclose(table["start_s"], [0, 0.96, 1.92, 2.88])
    np.testing.assert_allclose(table["end_s"], [0.96, 1.92, 2.88, 3.84])
    assert table["is_predicted"].tolist() == [False, True, True, False]


def test_the_segment_table_has_no_background_and_matches_the_columns():
    made = prediction(np.eye(3, dtype=bool)[:, :2], background=True)

    table = made.segments_dataframe()

    assert len(table) == 3 * 2
    for row in table.itertuples():
        segment, column = round(row.start_s), int(row.label.split()[1])
        assert row.probability == made.probabilities[segment, column]
        assert row.is_predicted == made.predicted[segment, column]


NAMES = ("dog & cat", "a < b", "x > y", "1 --> 2", "two\nlines\n\nor three", "Füße 犬", "tab\there")
EVENTS = [
    Event(name, modality, start_s, start_s + 1.5, 0.5 + number / 100)
    for number, (name, modality, start_s) in enumerate(
        zip(
            NAMES,
            ["audio-visual", "audio", "visual", *["audio-visual"] * 4],
            [0.0, 0.96, 2.0, 59.5, 61.04, 3599.9, 4000.125],
            strict=True,
        )
    )
]


def read_by_ffmpeg(text: str, kind: str) -> list[tuple[float, float, str]]:
    """Return start, end and text of each cue as read by ffmpeg."""
    made = subprocess.run(
        ["ffmpeg", "-v", "error", "-f", kind, "-i", "-", "-f", "srt", "-"],
        input=text.encode(), capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert not made.stderr, made.stderr.decode()
    clock = r"(\d+):(\d+):(\d+),(\d+)"
    cues = re.findall(
        rf"^\d+\n{clock} --> {clock}\n(.*?)\n\n", made.stdout.decode(), re.DOTALL | re.MULTILINE
    )
    return [
        (seconds(cue[:4]), seconds(cue[4:8]), cue[8].replace("<", "‹").replace(">", "›"))
        for cue in cues
    ]


def seconds(clock: tuple[str, ...]) -> float:
    hours, minutes, whole, milliseconds = map(int, clock)
    return hours * 3600 + minutes * 60 + whole + milliseconds / 1000


def caption(event: Event) -> str:
    """Return the displayed caption, with the characters that SubRip replaces."""
    suffix = "" if event.modality == "audio-visual" else f" ({event.modality})"
    text = f"{' '.join(event.label.split())}{suffix} {event.confidence:.0%}"
    return text.replace("<", "‹").replace(">", "›")


@needs_ffmpeg
@pytest.mark.parametrize(("write", "kind"), [(to_vtt, "webvtt"), (to_srt, "srt")])
def test_ffmpeg_reads_the_times_and_texts_of_subtitles(write, kind):
    cues = read_by_ffmpeg(write(EVENTS), kind)

    assert [text for _, _, text in cues] == [caption(event) for event in EVENTS]
    for (start_s, end_s, _), event in zip(cues, EVENTS, strict=True):
        assert start_s == pytest.approx(event.start_s, abs=0.0006)
        assert end_s == pytest.approx(event.end_s, abs=0.0006)


def test_webvtt_escapes_special_characters_and_arrows():
    text = to_vtt(EVENTS)

    assert text.startswith("WEBVTT\n\n")
    assert text.count("-->") == len(EVENTS)
    assert "a &lt; b" in text
    assert "dog &amp; cat" in text


def test_subtitles_without_events_are_valid_empty_files():
    assert to_vtt([]).strip() == "WEBVTT"
    assert to_srt([]) == ""
    assert to_audacity([]) == ""
    assert json.loads(to_json_text([])) == []


def test_audacity_labels_have_three_columns():
    """Audacity's File > Import > Labels reads start (s), end (s) and text, separated by tabs."""
    rows = [line.split("\t") for line in to_audacity(EVENTS).splitlines()]

    assert [(float(start), float(end)) for start, end, _ in rows] == [
        (event.start_s, event.end_s) for event in EVENTS
    ]
    assert rows[0][2] == "dog & cat 50%"
    assert rows[1][2] == "a < b (audio) 51%"
    assert all(len(row) == 3 for row in rows)


def test_json_contains_the_whole_prediction():
    made = prediction(np.array([[True, False], [True, True]]), segment_s=0.5, labels=NAMES)

    (read,) = json.loads(to_json_text([made]))

    assert read["video"] == "a.mp4"
    assert read["segment_s"] == 0.5
    assert [Event(**event) for event in read["events"]] == made.events
    assert [Column(**column) for column in read["columns"]] == list(made.columns)
    np.testing.assert_allclose(read["probabilities"], made.probabilities, rtol=1e-7)


def test_a_table_without_events_has_the_same_columns_and_types():
    none, some = prediction(np.zeros((3, 2), bool)), prediction(np.ones((3, 2), bool))

    assert none.to_dataframe().empty
    pd.testing.assert_series_equal(none.to_dataframe().dtypes, some.to_dataframe().dtypes)


@needs_ffmpeg
def test_a_prediction_saves_its_own_subtitles(tmp_path):
    made = prediction(np.array([[True], [False], [True]]), labels=("Füße",))

    made.save_vtt(tmp_path / "a.vtt")

    cues = read_by_ffmpeg((tmp_path / "a.vtt").read_text(encoding="utf-8"), "webvtt")
    assert [(start_s, end_s) for start_s, end_s, _ in cues] == [(0, 1), (2, 3)]


def test_a_plot_has_a_line_and_bars_for_each_predicted_class():
    made = prediction(np.array([[True, False], [False, False], [True, False]]), segment_s=0.5)

    axes = made.plot()

    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), [0, 0.5, 1.0, 1.5])
    np.testing.assert_array_equal(line.get_ydata()[:3], made.probabilities[:, 0])
    (bars,) = axes.collections
    spans = [path.get_extents() for path in bars.get_paths()]
    assert [(span.x0, span.x1) for span in spans] == [(0, 0.5), (1.0, 1.5)]
    assert prediction(np.zeros((2, 1), bool)).plot(axes) is axes
