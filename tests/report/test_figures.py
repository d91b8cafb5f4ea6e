"""Figures of the report: positions of their elements, and self-contained SVG files."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from distributed_avel.metrics.segment import per_class_f1
from distributed_avel.report import figures, svg
from distributed_avel.report.page_data import LearningCurve, ThresholdPlot, WindowSummary

CURVE = ThresholdPlot(
    thresholds=(0.01, 0.5, 0.99),
    sensitivity=(1.0, 0.5, 0.0),
    specificity=(0.0, 0.5, 1.0),
    chosen=0.5,
)


def parse(figure):
    return ET.fromstring(figure)


def of_class(figure, class_):
    return [e for e in parse(figure).iter() if class_ in e.get("class", "").split()]


def tooltips(figure):
    return [element.text for element in parse(figure).iter() if element.tag == "title"]


def test_each_cell_of_a_confusion_matrix_has_a_tooltip_with_its_count():
    confusion = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 8]])
    figure = figures.confusion_figure(confusion, ["dog", "<bell>", "background"])
    assert [cell[0].text for cell in of_class(figure, "heat")] == [
        "true dog, predicted dog: 3 (75%)",
        "true dog, predicted <bell>: 1 (25%)",
        "true background, predicted dog: 2 (20%)",
        "true background, predicted background: 8 (80%)",
    ]
    seven, two, small, eight = (float(c.get("fill-opacity", "")) for c in of_class(figure, "heat"))
    assert small < two < seven < eight < 1
    assert [text.text for text in of_class(figure, "cell")] == ["75", "25", "20", "80"]


def test_the_diagonal_runs_from_the_upper_left_to_the_lower_right():
    figure = figures.confusion_figure(np.eye(4, dtype=int), ["a", "b", "c", "background"])
    places = [(float(c.get("x", "")), float(c.get("y", ""))) for c in of_class(figure, "heat")]
    assert places == sorted(places)
    assert places == sorted(places, key=lambda place: place[1])


def test_dots_are_at_the_f1_of_their_class_with_background_on_top():
    f1_by_arm = {"AVE": np.array([50.0, 100.0, 0.0]), "AVE+A+LR": np.array([0.0, 100.0, 50.0])}
    figure = figures.f1_figure(f1_by_arm, ["dog", "bell", "background"], {"AVE": 1, "AVE+A+LR": 4})
    assert tooltips(figure) == [
        "background: AVE 0.0, AVE+A+LR 50.0",
        "bell: AVE 100.0, AVE+A+LR 100.0",
        "dog: AVE 50.0, AVE+A+LR 0.0",
    ]
    base = [float(dot.get("cx", "")) for dot in of_class(figure, "s1") if dot.tag == "circle"][1:]
    assert base[2] - base[0] == pytest.approx((base[1] - base[0]) / 2, abs=0.02)


def test_the_chosen_threshold_is_marked_at_its_position():
    figure = figures.threshold_figure(CURVE)
    (chosen,) = of_class(figure, "chosen")
    dots = [float(e.get("cx", "")) for e in of_class(figure, "dot") if e.tag == "circle"]
    assert float(chosen.get("x1", "")) == dots[1] == pytest.approx((dots[0] + dots[2]) / 2)
    assert "chosen: 0.5" in figure


def test_an_increasing_rate_is_drawn_upwards():
    lines = of_class(figures.threshold_figure(CURVE), "line")
    sensitivity, specificity = (e.get("points", "").split() for e in lines if e.tag == "polyline")
    heights = [float(point.split(",")[1]) for point in specificity]
    assert heights == sorted(heights, reverse=True)  # y points downwards
    assert [float(point.split(",")[1]) for point in sensitivity] == heights[::-1]


def test_a_threshold_curve_needs_both_rates():
    with pytest.raises(ValueError, match="both rates"):
        ThresholdPlot(thresholds=(0.1, 0.2), sensitivity=(1.0, 1.0), specificity=(0.0,), chosen=0.1)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_without_a_logit_is_refused(threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        ThresholdPlot(thresholds=(0.5,), sensitivity=(1.0,), specificity=(1.0,), chosen=threshold)


def test_a_single_threshold_can_be_drawn():
    curve = ThresholdPlot(thresholds=(0.5,), sensitivity=(1.0,), specificity=(0.0,), chosen=0.5)
    assert "chosen: 0.5" in figures.threshold_figure(curve)


def test_a_fine_grid_of_thresholds_is_drawn_without_dots():
    grid = tuple(np.linspace(0.001, 0.999, 141).tolist())
    curve = ThresholdPlot(thresholds=grid, sensitivity=grid[::-1], specificity=grid, chosen=0.99912)
    figure = figures.threshold_figure(curve)
    assert not [e for e in of_class(figure, "dot") if e.tag == "circle"]
    assert "chosen: 0.999" in figure
    assert [e.text for e in of_class(figure, "tick")][5:] == [
        "0.001", "0.01", "0.1", "0.5", "0.9", "0.99", "0.999"]  # fmt: skip


def test_non_finite_values_are_omitted_from_a_learning_curve():
    curves = [
        LearningCurve(arm="AVE", metric="loss", epochs=(1, 2, 3), values=(2.0, float("nan"), 1.0)),
        LearningCurve(arm="B", metric="loss", epochs=(1,), values=(1.5,)),
    ]
    figure = figures.curves_figure(curves, {"AVE": 1, "B": 3})
    assert "nan" not in figure
    points = [e.get("points", "").split() for e in parse(figure).iter() if e.tag == "polyline"]
    assert [len(line) for line in points] == [2, 1]
    assert sum(e.tag == "circle" for e in parse(figure).iter()) == 1  # a line of one point


def test_a_constant_curve_does_not_divide_by_zero():
    curve = LearningCurve(arm="AVE", metric="loss", epochs=(5,), values=(0.7,))
    assert "polyline" in figures.curves_figure([curve], {"AVE": 0})


def test_windows_are_drawn_to_scale_and_events_without_windows_omitted():
    summary = WindowSummary(
        num_videos=30,
        num_windows=120,
        num_background=50,
        of_video_C=(40, 0, 80),
        kept_C=(10, 0, 80),
    )
    figure = figures.windows_figure(summary, ["dog", "bell", "drum"])
    assert tooltips(figure) == ["drum: 80 of 80 windows", "dog: 10 of 40 windows"]
    all_ = [float(bar.get("width", "")) for bar in of_class(figure, "all")]
    kept = [float(bar.get("width", "")) for bar in of_class(figure, "kept")]
    assert all_ == pytest.approx([all_[0], all_[0] / 2], abs=0.01)
    assert kept == pytest.approx([all_[0], all_[0] / 8], abs=0.01)


def test_a_standalone_figure_is_a_complete_svg_file_with_its_colours():
    confusion = np.array([[3, 1], [0, 2]])
    drawn = [
        figures.confusion_figure(confusion, ["a&b", "background"]),
        figures.f1_figure({"x": per_class_f1(confusion)}, ["a&b", "background"], {"x": 0}),
        figures.threshold_figure(CURVE),
    ]
    for figure in drawn:
        alone = figures.standalone(figure)
        assert parse(alone).tag == "{http://www.w3.org/2000/svg}svg"
        used = set(re.findall(r"var\((--[\w-]+)\)", alone))
        assert used
        assert used <= set(re.findall(r"(--[\w-]+):", alone))
        assert "prefers-color-scheme: dark" in alone


@pytest.mark.parametrize(
    ("low", "high", "about", "ticks"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 50, 5, [0, 10, 20, 30, 40, 50]),
        (0.692, 0.7041, 4, [0.69, 0.695, 0.7, 0.705]),
        (-3, 4, 4, [-4, -2, 0, 2, 4]),
        (3, 3, 5, [3]),
    ],
)
def test_ticks_are_round_and_span_the_values(low, high, about, ticks):
    assert svg.nice_ticks(low, high, about) == pytest.approx(ticks)


def test_long_text_ends_in_an_ellipsis():
    assert svg.shorten("Fixed-wing aircraft, airplane", 22) == "Fixed-wing aircraft…"
    assert svg.shorten("Dog", 3) == "Dog"


def test_attributes_and_text_are_escaped():
    figure = svg.figure(10, 10, svg.text(1, 2, "<&>", class_='"><script>'), label="a < b")
    (text,) = [element for element in parse(figure) if element.tag == "text"]
    assert (text.text, text.get("class")) == ("<&>", '"><script>')


def test_an_undefined_f1_has_no_dot():
    f1_by_arm = {"AVE": np.array([50.0, np.nan, 0.0]), "AVE+LR": np.array([60.0, np.nan, np.nan])}
    figure = figures.f1_figure(f1_by_arm, ["dog", "bell", "background"], {"AVE": 1, "AVE+LR": 2})

    assert "nan" not in figure
    assert "bell: AVE –, AVE+LR –" in figure
    assert "background: AVE 0.0, AVE+LR –" in figure
