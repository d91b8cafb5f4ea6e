"""Show what an extractor receives of one media file: which picture and which sound, and when.

    python jobs/inspect_media.py FILE [--out DIR] [--json] [--data.num-segments T]

Prints, for each segment, the presentation times of its sampled frames and of its sound, the
reader, and what is unusual about the file. The exit status is 2 where the file is refused.

    --out DIR    write sheet.png, a contact sheet with one frame a segment above its log-mel, and
                 samples.npz, exactly what the extractor receives: frames_TSHW3 (uint8),
                 frame_times_TS (s), waveform_TN (float32, mono), sample_rate_hz
    --json       print JSON in place of text
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from functools import partial

from distributed_avel.artifacts import Location
from distributed_avel.cli import USER_ERROR, run_job
from distributed_avel.config import InspectConfig
from distributed_avel.errors import MediaError
from distributed_avel.features.base import ExtractorRecipe
from distributed_avel.features.inspection import inspect_media
from distributed_avel.timeline import Timeline


def show(options: Namespace, config: InspectConfig) -> None:
    """Print what is known of the file, and write its samples where that is asked for."""
    data = config.data
    timeline = Timeline(num_segments=data.num_segments, segment_s=data.segment_s)
    extractor = ExtractorRecipe(timeline, config.extract)()
    try:
        media = Location.at(options.file).read_bytes()
    except OSError as error:
        raise MediaError(f"{options.file}: cannot be read ({error})") from None
    try:
        inspection = inspect_media(media, extractor)
    except MediaError as error:
        raise MediaError(f"{options.file}: {error}") from None
    as_json = json.dumps(inspection.to_json(), indent=2)
    print(as_json if options.json else inspection.to_text())
    if options.out:
        folder = Location.at(options.out)
        (folder / "sheet.png").write_bytes(inspection.sheet())
        (folder / "samples.npz").write_bytes(inspection.samples())


def main(argv: list[str]) -> int:
    """Take the file and the options of this job; the others are settings as in all jobs."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out", metavar="DIR")
    parser.add_argument("--json", action="store_true")
    asks_for_help = bool({"-h", "--help"} & {*argv})
    if not asks_for_help and (not argv or argv[0].startswith("-")):
        print("error: name the file first: jobs/inspect_media.py FILE [OPTIONS]", file=sys.stderr)
        return USER_ERROR
    options, settings = parser.parse_known_args(argv if asks_for_help else argv[1:])
    options.file = argv[0]
    return run_job(partial(show, options), settings, __doc__, InspectConfig)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
