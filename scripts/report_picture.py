"""Run a small demo and take the picture of its report page that the README shows.

    python scripts/report_picture.py [--out docs/report.png] [--run-dir DIR]

Needs Chromium or Chrome. The demo takes about 2 minutes on 2 CPU cores; with --run-dir, its results
are kept, and a second call only takes the picture. The picture shows the table of results and the
first timelines, not the sections between them.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from distributed_avel import RunResult, load_config, run_pipeline

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

WIDTH_PX, HEIGHT_PX = 1000, 1790

MAX_BYTES = 150_000
"""The picture is part of the repository."""

_NUM_COLOURS = 96

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--blink-settings=preferredColorScheme=1",
    "--virtual-time-budget=5000",
)

_ONLY_TABLE_AND_TIMELINES = """
<style>
#classes, #refinement, #training, #failures, #settings, figure:has(.intervals), dl.arms {
  display: none;
}
</style>
"""


def main(argv: list[str]) -> int:
    """Write the picture; return the exit status."""
    parser = argparse.ArgumentParser(description="Take a picture of the report of a small demo.")
    parser.add_argument("--out", type=Path, default=Path("docs/report.png"))
    parser.add_argument("--run-dir", type=Path)
    args = parser.parse_args(argv)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        parser.error(f"none of {', '.join(BROWSERS)} is on the PATH")
    with TemporaryDirectory() as folder:
        result = small_demo(args.run_dir or Path(folder) / "run")
        take_picture(browser, result.report.read_bytes().decode(), args.out, Path(folder))
    size = args.out.stat().st_size
    print(f"{args.out}: {size} bytes")
    return int(size > MAX_BYTES)


def small_demo(run_dir: Path) -> RunResult:
    """Run three arms on a small demo (synthetic videos)."""
    config = load_config(
        run_dir=str(run_dir),
        arms=["base", "LR", "A+LR"],
        data={"demo": {"num_train": 80, "num_event_free": 16, "num_val": 24, "num_test": 32}},
        train={"base_epochs": 40, "retrain_epochs": 40},
        tracking={"enabled": False},
    )
    return run_pipeline(config)


def take_picture(browser: str, page: str, out: Path, folder: Path) -> None:
    """Write a picture of the table and the first timelines of a report page.

    Args:
        browser: Path of Chromium or Chrome.
        page: The report page.
        out: The PNG file.
        folder: For temporary files.
    """
    html, raw = folder / "page.html", folder / "raw.png"
    html.write_text(page + _ONLY_TABLE_AND_TIMELINES, encoding="utf-8")
    command = [
        browser,
        *_OPTIONS,
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={WIDTH_PX},{HEIGHT_PX}",
        f"--screenshot={raw}",
        html.as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(raw) as picture:
        few_colours = picture.convert("RGB").quantize(_NUM_COLOURS, dither=Image.Dither.NONE)
        few_colours.save(out, optimize=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
