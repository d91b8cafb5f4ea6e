"""The page of predictions: events beside the video, wherever the page and the media are."""

import json
import re
import time

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from distributed_avel.commands import main
from distributed_avel.media.write import write_mp4
from distributed_avel.predict import Prediction
from distributed_avel.predict.events_page import events_page, media_address
from distributed_avel.predict.model_folder import read_model_folder
from distributed_avel.predict.prediction import Column
from distributed_avel.storage import Location
from tests.media.clips import clip
from tests.predict.folders import CLASSES

pytestmark = pytest.mark.timeout(120)

LOCALIZATION = tuple(Column(name, "audio-visual") for name in CLASSES)
PARSING = tuple(Column(name, kind) for kind in ("audio", "visual") for name in CLASSES)


def prediction(video, classes, **changes):
    """A prediction of localization, with the class of each segment; 3 is background."""
    predicted_MK = np.eye(4, dtype=bool)[list(classes)]
    values = {
        "video": video,
        "segment_s": 1.0,
        "columns": LOCALIZATION,
        "probabilities": np.where(predicted_MK, 0.7, 0.1).astype(np.float32),
        "predicted": predicted_MK,
    }
    return Prediction(**(values | changes))


@pytest.fixture(scope="session")
def settings(model_folder):
    return read_model_folder(Location.at(model_folder))[0]


def data_of(text):
    (found,) = re.findall(r'<script type="application/json" id="video-data">(.*?)</script>', text)
    return json.loads(found)


def test_the_page_has_the_events_with_their_times_and_confidences(visit, settings, tmp_path):
    made = [
        prediction("a.mp4", [3, 3, 0, 0, 1]),
        prediction("b.mp4", [3] * 7, note="the sound ends at 7 s"),
        prediction("gone & <b>.mp4", [1] * 3000),
    ]
    (text,) = events_page(made, ["c.mp4: <broken>"], Location.at(tmp_path), settings).values()
    page = visit(text, page_name="events.html")
    assert page.locator("h1").text_content() == "Events in 3 videos"
    runs = page.locator(".timeline").nth(0).locator(".run")
    assert runs.evaluate_all("runs => runs.map(run => run.title)") == [
        "background, 0–2 s, 70 %", "bell, 2–4 s, 70 %", "dog & <cat>, 4–5 s, 70 %"]  # fmt: skip
    assert page.get_by_text("the sound ends at 7 s").is_visible()
    assert page.locator("#failures li").all_text_contents() == ["c.mp4: <broken>"]
    widths = runs.evaluate_all("runs => runs.map(run => run.getBoundingClientRect().width)")
    assert widths[0] == pytest.approx(2 * widths[2], rel=0.05)

    page.get_by_label("Sort by").select_option(label="length")
    page.get_by_label("descending").check()
    ids = page.locator("#videos h3 code").all_text_contents()
    assert ids == ["gone & <b>.mp4", "b.mp4", "a.mp4"]
    page.get_by_label("Search").fill("BELL")
    assert page.locator("#videos h3 code").all_text_contents() == ["a.mp4"]
    page.get_by_role("button", name="Play a.mp4").click()
    page.get_by_text("a.mp4 is not at hand, or this browser cannot play it").wait_for()


def test_parsing_has_a_lane_for_each_modality_with_a_row_for_each_class(visit, settings, tmp_path):
    predicted_MK = np.zeros((4, 6), dtype=bool)
    predicted_MK[1:3, 0] = predicted_MK[2:, 1] = True
    made = prediction(
        "a.mp4",
        [0],
        columns=PARSING,
        predicted=predicted_MK,
        probabilities=predicted_MK.astype(np.float32),
    )
    (text,) = events_page([made], [], Location.at(tmp_path), settings).values()
    page = visit(text, page_name="events.html")
    lanes = page.locator(".lane:has(.run)")
    titles = lanes.evaluate_all(
        "lanes => lanes.map(lane => [...lane.querySelectorAll('.run')].map(run => run.title))"
    )
    assert titles == [["bell, 1–3 s, 100 %", "dog & <cat>, 2–4 s, 100 %"], ["no event, 0–4 s"]]
    page.locator("input[type=range]").fill("2.5")
    text = page.locator(".now").text_content()
    assert text == "2.5 s: audio bell, dog & <cat>; visual no event"


def test_predict_writes_the_page_which_plays_the_file(visit, model_folder, tmp_path, capsys):
    media = tmp_path / "my clips"
    media.mkdir()
    (media / "a #1.mp4").write_bytes(clip())
    out = tmp_path / "events"

    assert main(["predict", str(model_folder), str(media), "--out", str(out)]) == 0

    files = {path.name: path.read_text() for path in out.glob("*.html")}
    assert [*files] == ["events.html"]
    data = data_of(files["events.html"])
    assert data["videos"][0][4] == "../my%20clips/a%20%231.mp4"
    (detail,) = data["details"]
    assert len(detail["pictures"]["frames"]) == data["videos"][0][3]
    page = visit({}, page_name="events/events.html")
    page.get_by_role("button", name="Play").click()
    deadline = time.monotonic() + 10
    while page.evaluate("document.querySelector('video').currentTime") < 0.2:
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)
    assert page.locator(".mel").evaluate("image => image.naturalWidth") > 100
    found = Axe().run(page).response["violations"]
    assert not [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")]


@pytest.mark.parametrize(
    ("video", "address"),
    [
        ("/data/a b.mp4", "../data/a%20b.mp4"),
        ("file:///data/a%20b.mp4", "../data/a%20b.mp4"),
        ("https://host/a.mp4?part=1", "https://host/a.mp4?part=1"),
        ("s3://bucket/a.mp4", None),
    ],
)
def test_a_media_file_has_an_address_for_the_page_if_a_browser_can_open_it(video, address):
    assert media_address(video, Location.at("/out")) == address


def test_a_long_video_has_key_frames_as_pictures(settings, tmp_path):
    video = tmp_path / "long.mp4"
    frames = np.repeat(np.arange(0, 256, 2, dtype=np.uint8), 48 * 64 * 3).reshape(128, 48, 64, 3)
    video.write_bytes(write_mp4(frames, 1, np.zeros((1, 16_000 * 128), np.float32), 16_000))
    made = [prediction(str(video), [0] * 128)]
    (text,) = events_page(made, [], Location.at(tmp_path), settings).values()
    pictures = data_of(text)["details"][0]["pictures"]
    assert len(pictures["frames"]) == 12
    assert "waveform" not in pictures


def test_many_predictions_have_data_files(settings, tmp_path):
    made = [prediction(f"{n}.mp4", [0, 3]) for n in range(501)]
    files = events_page(made, [], Location.at(tmp_path / "out"), settings)
    assert [*files][:3] == ["events.html", "events_single.html", "events_videos/0000.js"]
    assert len(files) == 2 + 6


def test_no_prediction_at_all_still_has_a_page(visit, settings, tmp_path):
    (text,) = events_page([], ["a.mp4: no audio"], Location.at(tmp_path), settings).values()
    page = visit(text, page_name="events.html")
    assert page.locator("output[name=count]").text_content() == "0 videos"


def test_a_hop_changes_the_seconds_but_not_the_pictures(settings, tmp_path):
    """A file of 4.6 s has 5 segments."""
    (tmp_path / "a.mp4").write_bytes(clip(4.6, fps=10.0))
    video = str(tmp_path / "a.mp4")
    out = Location.at(tmp_path)
    (plain,) = events_page([prediction(video, [0] * 5)], [], out, settings).values()
    made = prediction(video, [0] * 20, segment_s=0.25)
    (finer,) = events_page([made], [], out, settings).values()

    assert data_of(plain)["segment_s"] == 1.0
    assert data_of(finer)["segment_s"] == 0.25
    pictures = re.findall(r"data:image/jpeg[^\"]*", plain)
    assert pictures
    assert re.findall(r"data:image/jpeg[^\"]*", finer) == pictures
