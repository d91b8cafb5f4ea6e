"""The report page: complete, self-contained, labels synthetic data, and escapes names."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from distributed_avel.metrics.bootstrap import Interval
from distributed_avel.report.page import render_page
from distributed_avel.report.page_data import ClassScores, Failure, Spread
from distributed_avel.report.tables import format_cell
from tests.report.samples import CLASSES, jpeg, make_report

VOID = {"meta", "img", "br", "link", "input"}
HOSTILE = '<script>alert("1")</script>&"\'>'


class Page(HTMLParser):
    """Elements of a page with their attributes and text; refuses tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag not in ("code", "b", "strong"):
            self.words.append(" ")

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def all(self, tag, class_=None):
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and (class_ is None or class_ in (attributes.get("class") or "").split())
        ]


@pytest.fixture
def report():
    return make_report()


@pytest.fixture
def page(report):
    return Page(render_page(report))


def test_every_tag_is_closed_and_links_point_to_sections(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [link["href"] for link in page.all("a")]
    assert targets == [f"#{name}" for name in
                       ("results", "classes", "refinement", "training", "timelines", "failures",
                        "settings")]  # fmt: skip
    assert {target.removeprefix("#") for target in targets} <= set(ids)


def test_the_page_loads_no_resources_and_runs_no_script(report):
    text = render_page(report)
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import|src\s*=\s*[\"'](?!data:)", text)
    assert not page.all("script")
    assert not page.all("link")
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    policies = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_timeline_has_its_frames_and_a_lane_for_each_arm(report, page):
    assert len(report.timelines) == 12
    assert len(page.all("figure", "timeline")) == 12
    assert len(page.all("img")) == 12 * 10
    assert len(page.all("div", "lane")) == 12 * (1 + 3 + 1)  # frames, three lanes, time axis
    assert len(page.all("svg", "probability")) == 12 * 2
    for video in report.timelines:
        assert video.video_id in page.text
    assert page.all("img")[0]["src"] == "data:image/jpeg;base64," + base64.b64encode(
        jpeg(0, 0)
    ).decode("ascii")
    assert "Those with pictures were the first of the test split by id." in page.text


def test_lanes_cover_the_video_and_underline_wrong_segments():
    report = make_report(num_timelines=1)
    video = report.timelines[0]
    page = Page(render_page(report))

    def covered(class_):
        spans = [re.findall(r"grid-column: (\d+) / (\d+)", run["style"])[0]
                 for run in page.all("span", class_)]  # fmt: skip
        return sum(int(end) - int(start) for start, end in spans)

    assert covered("run") == 3 * 10
    wrong = sum(int((p != video.truth_T).sum()) for p in video.predictions.values())
    assert wrong > 0
    assert covered("wrong") == wrong


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_data_are_labelled_in_every_figure(synthetic):
    page = Page(render_page(make_report(synthetic=synthetic)))
    num_tags = len(page.all("figcaption")) + len(page.all("figure", "timeline"))
    assert num_tags == 6 + 12
    if synthetic:
        assert page.text.count("[synthetic data]") + page.text.count("[synthetic]") == num_tags
        assert page.text.startswith("Temporal label refinement on demo (synthetic data)")
        assert "These data are synthetic." in page.text
        assert page.text.endswith("synthetic data · made by distributed_avel")
    else:
        assert "synthetic" not in page.text
        assert "recorded data" in page.text


def test_the_table_contains_the_results_and_the_summary_the_change(report, page):
    for figures in report.results.values():
        for figure in figures.values():
            assert format_cell(figure) in page.text  # a dash where it is undefined
    before, after = (report.results[arm]["non_ave_f1"] for arm in ("AVE", "AVE+A+LR"))
    assert f"Non-AVE F1 {before:.1f} → {after:.1f}" in page.text
    assert "the ground-truth video-level label, repeated over all segments" in page.text
    assert len(page.all("tr", "naive")) == 1


def test_means_over_seeds_are_shown_with_their_spread():
    results = {arm: {"accuracy": Spread(mean=mean, sd=0.46, count=3)}
               for arm, mean in (("AVE", 70.04), ("AVE+A+LR", 71.96))}  # fmt: skip
    page = Page(render_page(make_report(results=results)))
    assert "70.0 ± 0.5" in page.text
    assert "72.0 ± 0.5" in page.text


def test_warnings_come_before_the_results():
    page = Page(render_page(make_report(warnings=("nearly all windows are background",))))
    at = page.text.index("Warning. nearly all windows are background")
    assert at < page.text.index("Results on the test split")
    assert len(page.all("p", "alarm")) == 1


def test_hostile_names_are_escaped():
    report = make_report(
        title=HOSTILE,
        dataset=HOSTILE,
        classes=(HOSTILE, *CLASSES[1:]),
        warnings=(HOSTILE,),
        settings={HOSTILE: {HOSTILE: HOSTILE}},
        provenance={HOSTILE: HOSTILE},
        failures=(Failure(video_id=HOSTILE, stage=HOSTILE, error=HOSTILE),),
        timeline_selection=HOSTILE,
    )
    text = render_page(report)
    assert "<script" not in text
    page = Page(text)
    assert page.text.count('<script>alert("1")</script>&"\'>') >= 10
    titles = [run["title"] for run in page.all("span", "run") if "script" in run["title"]]
    assert titles
    assert all(title.startswith(HOSTILE) for title in titles)


def test_sections_without_content_are_left_out():
    report = make_report(
        confusion={},
        threshold_curves={},
        windows=None,
        learning_curves=(),
        timelines=(),
        failures=(),
        settings={},
        provenance={},
    )
    page = Page(render_page(report))
    assert [link["href"] for link in page.all("a")] == ["#results", "#failures"]
    assert not page.all("svg")
    assert "None: every video was used." in page.text


def test_unlisted_failures_are_counted_and_their_file_is_named():
    text = Page(render_page(make_report(num_failures=150, failures_elsewhere="x.parquet"))).text
    assert (
        "150 videos, with the reason; the first 1 are listed here, all of them in x.parquet" in text
    )


def test_settings_are_listed_with_their_full_key(page):
    assert "All 4 settings of the run" in page.text
    assert "refine.window 4 refine.stride 2 refine.threshold validation" in page.text


def test_videos_without_frames_or_scores_have_lanes(report):
    bare = make_report(frames=False)
    page = Page(render_page(bare))
    assert not page.all("img")
    assert len(page.all("div", "lane")) == 12 * 4


def test_a_page_without_frames_is_small_even_with_the_classes_of_ave():
    report = make_report(classes=[f"class {c} of twenty-eight" for c in range(28)], frames=False)
    assert len(render_page(report).encode()) < 250_000


def test_frames_add_little_more_than_their_base64_size():
    with_frames = len(render_page(make_report()))
    without = len(render_page(make_report(frames=False)))
    num_bytes = sum(len(frame) for video in make_report().timelines for frame in video.frames)
    assert with_frames - without < 4 / 3 * num_bytes + 12 * 10 * 100


def test_a_frame_that_is_not_a_jpeg_is_refused():
    report = make_report(num_timelines=1)
    frames = (b"\x89PNG", *report.timelines[0].frames[1:])
    object.__setattr__(report.timelines[0], "frames", frames)
    with pytest.raises(ValueError, match="video_000: a frame is not a JPEG file"):
        render_page(report)


def test_the_time_axis_of_longer_videos_is_readable():
    report = make_report(num_segments=60, num_timelines=1, frames=False)
    ticks = re.findall(r"<span style=\"left: ([\d.]+)%\">([^<]+)<", render_page(report))
    assert ticks[0] == ("0", "0")
    assert ticks[-1] == ("100", "60 s")
    assert len(ticks) <= 11
    assert (np.diff([float(place) for place, _ in ticks]) > 5).all()


def test_intervals_and_scores_of_classes_stand_in_tables():
    found = Interval(72.04, 70.06, 74.44)
    scores = ClassScores(name=HOSTILE, support=40, precision=None, recall=90.0, f1=0.0)
    report = make_report(
        intervals={"AVE": {"accuracy": found, "map_50": None}, "GT-repeat": {"accuracy": found}},
        differences={"accuracy": Interval(-1.0, -2.5, 0.5)},
        class_scores={"AVE": (scores,), "AVE+A+LR": (scores,)},
    )
    page = Page(render_page(report))
    assert "95% bootstrap intervals" in page.text
    assert "Accuracy mAP@0.5 GT-repeat 72.0 (70.1 to 74.4) – AVE 72.0 (70.1 to 74.4) –" in page.text
    assert "95 %: −2.5 to +0.5" in page.text
    assert f"{HOSTILE} 40 – 90.0 0.0 – 90.0 0.0" in page.text
