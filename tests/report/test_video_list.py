"""The list of all videos of a page, used by mouse, keyboard and touch in a browser."""

import re
import time

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from distributed_avel.media.write import write_mp4
from distributed_avel.report.page import page_files, render_page, with_media_root
from distributed_avel.report.page_data import Failure
from tests.report.samples import CLASSES, make_parsing_report, make_report
from tests.report.test_page import HOSTILE, Page

pytestmark = pytest.mark.timeout(120)


def ids(page):
    """Ids of the videos that the page shows."""
    return page.locator("#videos .timeline h3 code").all_text_contents()


def wait_until(page, condition):
    """Wait for a condition; the policy of the page forbids what `wait_for_function` does."""
    deadline = time.monotonic() + 10
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def wait_for_count(page, words):
    page.locator("output[name=count]", has_text=re.compile(f"^{words}$")).wait_for()


def test_text_and_class_filters_select_videos(visit):
    report = make_report(num_listed=80)
    page = visit(render_page(report))
    wait_for_count(page, "80 videos")
    assert ids(page) == [f"video_{i:03d}" for i in range(12)]

    page.keyboard.press("/")
    page.keyboard.type("VIDEO_07 dr")
    having = [v.video_id for v in report.videos[70:] if "drum" in names_of(v)]
    wait_for_count(page, f"{len(having)} of 80 videos")
    assert ids(page) == having

    page.get_by_label("Search").fill("")
    page.get_by_role("combobox", name="Class").select_option("siren")
    having = [v.video_id for v in report.videos if "siren" in names_of(v)]
    wait_for_count(page, f"{len(having)} of 80 videos")
    assert ids(page) == having[:12]

    page.get_by_label("Search").fill("nothing like this")
    wait_for_count(page, "0 of 80 videos")
    assert ids(page) == []


def names_of(video):
    classes = {*video.labels, *video.truth_T, *np.concatenate([*video.predictions.values()])}
    return {(*CLASSES, "background")[c] for c in classes}


def test_videos_are_sorted_by_correct_segments_and_by_disagreement(visit):
    report = make_report(num_listed=80)
    page = visit(render_page(report))
    right = {v.video_id: (v.predictions["AVE"] == v.truth_T).mean() for v in report.videos}
    differ = {v.video_id: (v.predictions["AVE"] != v.predictions["AVE+A+LR"]).mean()
              for v in report.videos}  # fmt: skip

    page.get_by_label("Sort by").select_option(label="correct segments, AVE")
    assert ids(page) == sorted(right, key=right.get)[:12]

    page.get_by_label("Sort by").select_option(label="disagreement, AVE and AVE+A+LR")
    page.get_by_label("descending").check()
    assert ids(page) == sorted(differ, key=lambda v: -differ[v])[:12]


def test_pages_can_be_turned_with_the_keyboard(visit):
    page = visit(render_page(make_report(num_listed=30)))
    page.get_by_label("Sort by").select_option(label="id")
    page.get_by_label("descending").focus()
    page.keyboard.press("Space")
    assert ids(page) == [f"video_{i:03d}" for i in range(29, 17, -1)]
    page.get_by_role("button", name="Next").press("Enter")
    page.get_by_role("button", name="Next").press("Enter")
    assert ids(page) == [f"video_{i:03d}" for i in range(5, -1, -1)]
    assert page.get_by_role("button", name="Next").is_disabled()
    assert page.locator(".pager span").text_content() == "25–30 of 30"


DESCRIBE = """figures => figures.map(figure => [...figure.querySelectorAll(
    ".key, .swatch, .name, .right, .run, .wrong, .probability path, .ticks span")].map(e => {
  const box = e.getBoundingClientRect();
  return [e.getAttribute("class"), e.textContent, e.title, e.getAttribute("d"),
    e.style.getPropertyValue("--hue"), Math.round(box.left), Math.round(box.width)].join("|");
}))"""


@pytest.mark.parametrize(
    "make", [make_report, pytest.param(make_parsing_report, marks=pytest.mark.slow)]
)
def test_the_script_draws_the_same_timelines_as_the_static_page(visit, make):
    static = visit(render_page(make(num_timelines=12, frames=False)))
    drawn = visit(render_page(make(num_timelines=0, num_listed=12)))
    drawn.locator(".timeline").nth(11).wait_for()

    expected = static.locator(".timeline").evaluate_all(DESCRIBE)
    found = drawn.locator(".timeline").evaluate_all(
        DESCRIBE.replace(".name", ".name:not(:has(.time))")
    )

    assert len(expected) == 12
    assert found == expected


def test_without_scripts_the_page_has_timelines_with_frames_and_no_form(visit):
    page = visit(render_page(make_report(num_listed=80)), java_script_enabled=False)
    assert page.locator(".timeline img").count() == 12 * 10
    assert not page.locator("form.search").is_visible()


def test_the_content_security_policy_allows_one_script():
    text = render_page(make_report(num_listed=80))
    page = Page(text)
    assert [script.get("type") for script in page.all("script")] == ["application/json", None]
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        r"script-src 'sha256-[\w+/=]{44}'; media-src 'none'",
        policy,
    )
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]


def test_hostile_names_are_escaped_by_the_script(visit):
    report = make_report(
        num_timelines=0,
        num_listed=12,
        classes=(HOSTILE, "</script><script>alert(2)</script>", *CLASSES[2:]),
        failures=(Failure(video_id=HOSTILE, stage=HOSTILE, error=HOSTILE),),
    )
    for video in report.videos:
        object.__setattr__(video, "video_id", f"{video.video_id}{HOSTILE}")
    page = visit(render_page(report))
    page.on("dialog", lambda dialog: pytest.fail("a script of the data runs"))
    assert ids(page) == [video.video_id for video in report.videos]
    page.get_by_role("combobox", name="Class").select_option(HOSTILE)
    assert page.locator(".run", has_text=HOSTILE).count() > 0
    assert page.locator("script").count() == 2


@pytest.fixture
def media(tmp_path):
    """A video of 10 s beside the page, in a folder with a name that URLs quote."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, size=(20, 48, 64, 3), dtype=np.uint8)
    folder = tmp_path / "my clips #1"
    folder.mkdir()
    sound = rng.normal(scale=0.01, size=(1, 160_000)).astype(np.float32)
    (folder / "a 100%.mp4").write_bytes(write_mp4(frames, 2, sound, 16_000))
    return folder


def playing_page(folder, media="a 100%.mp4"):
    report = make_report(num_listed=3, num_timelines=1, media={"video_000": media})
    return with_media_root(render_page(report), str(folder.parent), str(folder))


def test_a_playing_video_moves_the_cursor_of_its_timeline(visit, media):
    page = visit(playing_page(media))
    assert page.get_by_role("button", name="Play").count() == 1
    page.get_by_role("button", name="Play video_000").click()
    wait_until(page, "document.querySelector('video').currentTime > 0.2")
    wait_until(page, "+document.querySelector('input[type=range]').value > 0.1")
    player = page.locator("video").bounding_box()
    lanes = page.locator(".timeline .lanes").first.bounding_box()
    assert player["x"] + player["width"] <= lanes["x"]
    page.evaluate("document.querySelector('video').pause()")

    page.get_by_label("Time in video_000").press("End")
    wait_until(page, "document.querySelector('video').currentTime > 9.5")
    page.get_by_label("Time in video_000").press("Home")
    wait_until(page, "document.querySelector('video').currentTime === 0")

    cells = page.locator(".timeline").first.locator(".lane .cells").nth(1)
    box = cells.bounding_box()
    cells.click(position={"x": box["width"] * 0.55, "y": 5})
    wait_until(page, "Math.abs(document.querySelector('video').currentTime - 5.5) < 0.1")
    cursor = page.locator(".timeline").first.locator(".cursor").bounding_box()
    assert cursor["x"] == pytest.approx(box["x"] + 0.55 * box["width"], abs=3)


def test_a_tap_moves_the_cursor_without_media(visit):
    page = visit(
        render_page(make_report(num_listed=3, num_timelines=3)), width_px=390, has_touch=True
    )
    figure = page.locator(".timeline").nth(1)
    cells = figure.locator(".lane .cells").nth(1)
    box = cells.bounding_box()
    cells.scroll_into_view_if_needed()
    cells.tap(position={"x": box["width"] * 0.25, "y": 5})
    assert figure.get_by_role("slider").input_value() == "2.5"
    report = make_report(num_listed=3)
    truth = (*CLASSES, "background")[report.videos[1].truth_T[2]]
    assert figure.locator(".now").text_content().startswith(f"2.5 s: ground truth {truth}; AVE ")
    assert page.get_by_role("button", name="Play").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_frames_are_shown_if_the_media_file_is_missing(visit, media):
    page = visit(playing_page(media, media="gone.mp4"))
    page.get_by_role("button", name="Play video_000").click()
    page.get_by_text(
        "my clips #1/gone.mp4 is not at hand, or this browser cannot play it"
    ).wait_for()
    assert page.locator("video").count() == 0
    assert page.locator(".timeline img").count() == 10


def test_timelines_of_a_long_list_are_in_files_next_to_the_page(visit):
    report = make_report(num_listed=620, frames=False)
    files = page_files(report, "report.html")
    assert [*files] == ["report.html", "report_single.html",
                        *(f"report_videos/{n:04d}.js" for n in range(7))]  # fmt: skip
    assert len(files["report.html"]) < len(files["report_single.html"]) / 2
    page = visit(files)
    page.get_by_label("Search").fill("video_61")
    wait_for_count(page, "10 of 620 videos")
    assert ids(page) == [f"video_{n}" for n in range(610, 620)]

    single = visit({"report.html": files["report_single.html"]})
    single.get_by_label("Search").fill("video_61")
    wait_for_count(single, "10 of 620 videos")
    both = [p.locator(".timeline").evaluate_all(DESCRIBE) for p in (page, single)]
    assert both[0] == both[1]


def test_a_page_without_its_data_files_names_the_remedy(browser, tmp_path):
    files = page_files(make_report(num_listed=620, num_timelines=0), "report.html")
    (tmp_path / "report.html").write_text(files["report.html"], encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").text_content() == (
        "report_videos/0000.js beside this page cannot be read. Keep the page and its folder "
        "together, or open report_single.html."
    )
    page.close()


@pytest.mark.parametrize(
    ("make", "scheme", "width_px"),
    [
        (make_report, "light", 390),
        pytest.param(make_parsing_report, "dark", 1200, marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_serious(visit, make, scheme, width_px):
    report = make(num_listed=3, num_timelines=1, warnings=("a warning",))
    page = visit(render_page(report), color_scheme=scheme, width_px=width_px)
    page.locator(".timeline").nth(2).wait_for()
    page.locator("details summary").click()
    found = Axe().run(page).response["violations"]
    serious = {
        (rule["id"], node["html"][:120], node["failureSummary"][:200])
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"][:3]
    }
    assert not serious
