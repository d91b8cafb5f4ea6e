"""The page of a parsing run: audio and visual lanes, and the terms of parsing."""

import re

import numpy as np
import pytest

from distributed_avel.report.page import render_page
from distributed_avel.report.page_data import LocalizationReport, ParsedVideo
from distributed_avel.report.task_views import view_of
from distributed_avel.report.timelines import draw_parsed
from tests.report.samples import CLASSES, PARSING_ARMS, make_parsing_report, make_report
from tests.report.test_page import HOSTILE, Page


def events(**rows):
    """Make the events of one video, (M, T, C): digit c marks class c in a segment."""
    marks_MTC = np.zeros((2, 10, len(CLASSES)), dtype=bool)
    for modality, name in enumerate(("heard", "seen")):
        for row in rows.get(name, ()):
            for segment, mark in enumerate(row):
                if mark != ".":
                    marks_MTC[modality, segment, int(mark)] = True
    return marks_MTC


VIDEO = ParsedVideo(
    video_id="v",
    labels=(1, 2),
    truth_MTC=events(heard=["1111......", "..222....."]),
    predictions={"HAN": events(heard=["11........", "..2222...."], seen=["...33....."])},
)


def shown(lane):
    return [[(run.name, run.first, run.end, run.error) for run in row.bars] for row in lane.rows]


def test_a_lane_has_a_row_per_class_with_missed_events_and_false_positives():
    drawing = draw_parsed(VIDEO, make_parsing_report(num_timelines=0))
    lanes = {lane.name: lane for lane in drawing.lanes}
    assert list(lanes) == ["ground truth heard", "ground truth seen", "HAN heard", "HAN seen"]
    assert shown(lanes["ground truth heard"]) == [[("dog", 0, 4, "")], [("drum", 2, 5, "")]]
    assert shown(lanes["ground truth seen"]) == [[("no event", 0, 10, "")]]
    assert shown(lanes["HAN heard"]) == [
        [("dog", 0, 2, ""), ("dog", 2, 4, "missed")],
        [("drum", 2, 5, ""), ("drum", 5, 6, "false positive")],
    ]
    assert shown(lanes["HAN seen"]) == [[("engine", 3, 5, "false positive")]]
    assert [row.wrong for row in lanes["HAN heard"].rows] == [((2, 4),), ((5, 6),)]
    assert [lane.num_right for lane in drawing.lanes] == [None, None, 7, 8]
    assert [(key.name, key.present) for key in drawing.keys] == [
        ("dog", True), ("drum", True), ("engine", False)]  # fmt: skip


def test_every_mistake_is_underlined_and_marked_by_its_kind():
    report = make_parsing_report(num_timelines=3)
    page = Page(render_page(report))

    def covered(class_):
        spans = [re.findall(r"grid-column: (\d+) / (\d+)", run["style"])[0]
                 for run in page.all("span", class_)]  # fmt: skip
        return sum(int(end) - int(start) for start, end in spans)

    pairs = [(video.truth_MTC, p) for video in report.timelines for p in video.predictions.values()]
    missed = sum(int((truth & ~events).sum()) for truth, events in pairs)
    false_positives = sum(int((events & ~truth).sum()) for truth, events in pairs)
    assert missed > 0 < false_positives
    assert covered("missed") == missed
    assert covered("false-positive") == false_positives
    assert covered("wrong") == missed + false_positives
    assert len(page.all("figure", "timeline")) == 3
    assert len(page.all("img")) == 3 * 10
    assert len(page.all("div", "lane")) == 3 * (1 + 2 * (1 + len(PARSING_ARMS)) + 1)


def test_the_page_uses_the_terms_of_parsing():
    report = make_parsing_report()
    text = Page(render_page(report)).text
    assert text.startswith("Audio-visual video parsing on demo")
    assert "Weakly-supervised audio-visual video parsing with temporal label refinement" in text
    for words in ("localization", "Non-AVE", "background", "onfusion"):
        assert words not in text
    for words in ("Segment Type@AV", "Event Event@AV", "F1 of each class, heard.",
                  "counted once for each modality",
                  "repeated over all segments of both modalities", "40 test videos",
                  "From HAN to HAN+MA"):  # fmt: skip
        assert words in text
    for metric in ("segment_type", "segment_event", "event_type", "event_event"):
        before, after = (report.results[arm][metric] for arm in ("HAN", "HAN+MA"))
        assert f"{before:.1f} → {after:.1f}" in text


def test_labels_of_whole_modalities_are_not_called_windows():
    text = Page(render_page(make_parsing_report(exchanged=True))).text
    assert "window" not in text.split("Label refinement", 2)[2].split("All 4 settings")[0].lower()
    kept, all_ = sum(range(95, 101)), sum(range(145, 151))
    assert f"Of {all_} labels of a modality, {all_ - kept} (34 %) were removed" in text
    assert "Pseudo-labels of whole modalities of" in text


def test_each_modality_has_a_threshold_figure_and_an_f1_figure():
    text = render_page(make_parsing_report())
    assert re.findall(r"<h3>(heard|seen)</h3>", text) == ["heard", "seen"]
    assert text.count('aria-label="Sensitivity and specificity over the threshold"') == 2
    assert text.count('aria-label="F1 of each class"') == 2
    names = [name for name, _ in view_of(make_parsing_report()).files()]
    assert names == ["f1_heard.svg", "f1_seen.svg"]


def test_hostile_names_are_escaped():
    report = make_parsing_report()
    predictions = {HOSTILE: report.timelines[0].predictions["HAN"]}
    video = ParsedVideo(
        video_id=HOSTILE,
        labels=(0,),
        truth_MTC=events(heard=["0000000000"]),
        predictions=predictions,
    )
    text = render_page(
        make_parsing_report(
            title=HOSTILE,
            classes=(HOSTILE, *CLASSES[1:]),
            timelines=(video,),
            counts={HOSTILE: report.counts["HAN"]},
            results={HOSTILE: report.results["HAN"]},
        )
    )
    assert "<script" not in text
    page = Page(text)
    assert HOSTILE + " heard" in page.text
    assert any(run["title"].startswith(HOSTILE) for run in page.all("span", "run"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth_MTC": np.zeros((2, 9, 6), bool)}, r"v: truth: expected shape \(2, 10, 6\)"),
        ({"predictions": {"HAN": np.zeros((2, 10, 7), bool)}}, r"v: HAN: .*got \(2, 10, 7\)"),
        ({"frames": (b"",) * 3}, "v: 3 frames, expected 10 or none"),
    ],
)
def test_a_report_refuses_inconsistent_timelines(change, message):
    values = {
        "video_id": "v",
        "labels": (0,),
        "truth_MTC": events(),
        "predictions": {"HAN": events()},
    }
    with pytest.raises(ValueError, match=message):
        make_parsing_report(timelines=(ParsedVideo(**(values | change)),))


def test_a_report_refuses_counts_of_a_wrong_shape():
    counts = make_parsing_report(classes=CLASSES[:5]).counts
    with pytest.raises(ValueError, match=r"heard segments of HAN: expected shape \(40, 6\)"):
        make_parsing_report(counts=counts, timelines=())


def test_the_localization_page_does_not_mention_modalities():
    report = make_report()
    assert isinstance(report, LocalizationReport)
    text = Page(render_page(report)).text
    for words in ("heard", "seen", "Type@AV", "modalit"):
        assert words not in text
