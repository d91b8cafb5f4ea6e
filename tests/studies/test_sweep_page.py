"""The page and the figures of a sweep."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from distributed_avel.metrics.segment import SEGMENT_METRICS
from distributed_avel.search.selection import Candidate, StageUse, Trial, count_stages
from distributed_avel.search.space import valid_windows
from distributed_avel.studies.sweep.page import SweepReport, render_sweep, sweep_figures


def trials(thresholds, **point) -> tuple[Trial, ...]:
    found = []
    for windows in valid_windows(10)[:3]:
        for number, tau in enumerate(thresholds):
            metrics = dict.fromkeys(SEGMENT_METRICS, 50.0 + number + windows.num_windows)
            found.append(
                Trial(
                    point={
                        "refine.window": windows.window,
                        "refine.stride": windows.stride,
                        **point,
                        "refine.threshold": tau,
                    },
                    seed=0,
                    metrics=metrics,
                    stages=(
                        StageUse("base", str(windows), 20.0),
                        StageUse("retrain", f"{windows}{tau}", 1.0),
                    ),
                )
            )
    return tuple(found)


def report(found: tuple[Trial, ...], **changes) -> SweepReport:
    values = {
        "dataset": "synthetic",
        "synthetic": True,
        "windows": tuple(valid_windows(10)[:3]),
        "trials": found,
        "metrics": SEGMENT_METRICS,
        "trade_off": ("accuracy", "non_ave_f1"),
        "criterion": ("accuracy", "non_ave_f1"),
        "seed": 0,
        "chosen": Candidate(point=found[1].point, values=(60.0, 62.0)),
        "finalists": (Candidate(point=found[1].point, values=(60.0, 62.0)),),
        "counts": tuple(count_stages(found)),
        "settings": {"sweep": {"search": "grid"}},
    }
    return SweepReport(**{**values, **changes})


def test_every_cell_of_a_heat_map_describes_its_trial():
    found = trials((0.05, 0.5, 0.9))
    figure = sweep_figures(report(found))["non_ave_f1"]

    titles = [
        t.text for t in ElementTree.fromstring(figure).iter("{http://www.w3.org/2000/svg}title")
    ]
    assert len(titles) == 9
    assert "N 2, s 8, tau 0.05, seed 0: 52.00" in titles


def test_many_thresholds_are_grouped_and_a_cell_shows_the_best():
    found = trials(tuple(0.01 + 0.98 * i / 40 for i in range(41)))
    figure = sweep_figures(report(found))["accuracy"]

    titles = [
        t.text for t in ElementTree.fromstring(figure).iter("{http://www.w3.org/2000/svg}title")
    ]
    assert len(titles) <= 3 * 8
    assert any("92.00" in (title or "") for title in titles)  # the largest of all trials


def test_figures_are_complete_svg_files_and_include_categorical_settings():
    found = trials((0.05, 0.5), **{"model.name": "ave"})
    figures = sweep_figures(report(found))

    assert {"parallel", "trade_off", "cost_accuracy", "cost_non_ave_f1", *SEGMENT_METRICS} == set(
        figures
    )
    for figure in figures.values():
        assert ElementTree.fromstring(figure).tag == "{http://www.w3.org/2000/svg}svg"
    assert ">ave<" in figures["parallel"]


def test_the_page_escapes_text_and_loads_no_resources():
    failed = Trial(point=trials((0.5,))[0].point, seed=3, error="<script>alert(1)</script>")
    page = render_sweep(report((*trials((0.05, 0.5)), failed), dataset="<b>x</b>"))

    assert "<script" not in page
    assert "&lt;b&gt;x" in page
    assert "default-src 'none'" in page
    assert "6 trials finished, 1 failed" in page


def test_the_page_shows_which_stages_were_shared():
    page = render_sweep(report(trials((0.05, 0.5))))

    assert "<td>6</td><td>3</td><td>60</td><td>120</td>" in page  # base: 3 x 20 s, not 6 x 20 s


@pytest.mark.parametrize(("synthetic", "count"), [(True, 1), (False, 0)])
def test_synthetic_data_are_labelled_synthetic(synthetic, count):
    page = render_sweep(report(trials((0.05, 0.5)), synthetic=synthetic))

    assert page.count("These data are synthetic.") == count
    assert ("[synthetic data]" in page) == synthetic


def test_the_report_can_be_written_as_json():
    found = trials((0.05, 0.5))
    values = json.loads(json.dumps(report(found).to_json()))

    assert values["split"] == "val"
    assert values["chosen"]["mean"] == 61.0
    assert len(values["trials"]) == 6


def test_undefined_metrics_are_dashes_or_null_and_excluded_from_figures():
    first, *others = trials((0.05, 0.5))
    undefined = replace(
        first, metrics={**dict.fromkeys(SEGMENT_METRICS, 90.0), "non_ave_precision": None}
    )
    without = replace(first, metrics=dict.fromkeys(SEGMENT_METRICS, None))

    some, all_of_them = report((undefined, *others)), report((without, without))

    assert "90.00" not in sweep_figures(some)["non_ave_precision"]
    assert "90.00" in sweep_figures(some)["accuracy"]
    assert "<td>–</td>" in render_sweep(some)
    text = json.dumps(some.to_json(), allow_nan=False)
    assert json.loads(text)["trials"][0]["metrics"]["non_ave_precision"] is None
    assert sweep_figures(all_of_them) == {}
    assert "<td>–</td>" in render_sweep(all_of_them)  # the criterion too
