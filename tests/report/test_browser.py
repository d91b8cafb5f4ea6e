"""Layout of the page in a real browser, at the widths of a phone and a desktop, light and dark.

The browser shows the report in a frame of a test page, whose script measures it and records the
results.
"""

import html
import json
import re
import shutil
import subprocess

import pytest

from distributed_avel.report.page import render_page
from tests.report.samples import make_parsing_report, make_report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH")

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1400,1000",
    "--virtual-time-budget=5000",
    "--dump-dom",
]

MEASURE = """
<!doctype html><iframe srcdoc="%s" style="border: 0; width: %dpx; height: 900px"></iframe><script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  const style = (element, name) => getComputedStyle(element).getPropertyValue(name);
  for (const image of page.images) image.loading = "eager";
  const cut = [...page.querySelectorAll("svg text")].filter(text => {
    const box = text.getBoundingClientRect(), figure = text.closest("svg").getBoundingClientRect();
    return box.left < figure.left - .5 || box.right > figure.right + .5
      || box.top < figure.top - .5 || box.bottom > figure.bottom + .5;
  });
  setTimeout(() => {
    const found = {
      overflow_px: page.documentElement.scrollWidth - %d,
      cut_words: cut.map(text => text.textContent),
      images: page.images.length,
      broken_images: [...page.images].filter(image => !image.naturalWidth).length,
      paper: style(page.body, "background-color"),
      run: style(page.querySelector(".run:not(.background)"), "background-color"),
      ragged_lanes: [...page.querySelectorAll(".lane")].filter(lane => {
        const boxes = [...lane.querySelectorAll(".cells")].map(row => row.getBoundingClientRect());
        return boxes.some((box, i) => box.left !== boxes[0].left || box.width !== boxes[0].width
          || (i && box.top < boxes[i - 1].bottom));
      }).length,
      smallest_figure_text_px: Math.min(...[...page.querySelectorAll("svg text")].map(
        text => parseFloat(style(text, "font-size")) * Math.sqrt(text.getScreenCTM().a ** 2
          + text.getScreenCTM().b ** 2))),
    };
    document.body.innerHTML = "<pre>" + JSON.stringify(found) + "</pre>";
  }, 500);
};
</script>
"""


def measure(report, folder, *, width_px, dark=False):
    """Return the browser's measurements of a report page in a window of a given width."""
    path = folder / "measure.html"
    escaped = html.escape(render_page(report))
    path.write_text(MEASURE.strip() % (escaped, width_px, width_px), encoding="utf-8")
    command = [
        BROWSER,
        *OPTIONS,
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    written = re.search(r"<pre>(.*)</pre>", done.stdout, re.DOTALL)
    assert written, done.stderr[-2000:]
    return json.loads(html.unescape(written[1]))


AVE_LIKE = tuple(f"Female speech, woman speaking {c}" for c in range(28))


@pytest.mark.parametrize("width_px", [390, 1280])
@pytest.mark.parametrize("classes", [("bell", "dog", "drum"), AVE_LIKE], ids=["few", "many"])
@pytest.mark.parametrize("make", [make_report, make_parsing_report])
def test_text_is_not_clipped_or_too_small_and_nothing_overflows(tmp_path, width_px, classes, make):
    found = measure(make(classes=classes), tmp_path, width_px=width_px)
    assert found["overflow_px"] <= 0
    assert found["cut_words"] == []
    assert found["images"] == 12 * 10
    assert found["broken_images"] == 0
    assert found["smallest_figure_text_px"] >= 8
    assert found["ragged_lanes"] == 0


def test_the_page_follows_the_preferred_color_scheme(tmp_path):
    light = measure(make_report(num_timelines=1), tmp_path, width_px=900)
    dark = measure(make_report(num_timelines=1), tmp_path, width_px=900, dark=True)
    assert light["paper"] == "rgb(253, 252, 249)"
    assert dark["paper"] == "rgb(23, 24, 26)"
    assert light["run"] != dark["run"]
