"""`avel predict` on unusual files and folders: events, or one error line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from media.clips import clip, grey_frames
from media.coded import coded, ffmpeg

from distributed_avel import load_model
from distributed_avel.commands import main
from distributed_avel.config import ExtractConfig
from distributed_avel.errors import DatasetError, MediaError, StorageError
from distributed_avel.features import any_length
from distributed_avel.features.any_length import AnyLength
from distributed_avel.features.base import ExtractorRecipe
from distributed_avel.features.descriptors import Descriptors
from distributed_avel.media.files import opened_file
from distributed_avel.media.write import write_mp4
from distributed_avel.predict.files import EVENTS_SCHEMA, write_predictions
from distributed_avel.predict.sources import find_files
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline
from tests.predict.folders import CLASSES, T, write_folder
from tests.predict.test_prediction import prediction

pytestmark = pytest.mark.timeout(180)

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac")


@pytest.fixture(scope="module")
def model(model_folder):
    """One model for all tests, so that its decoding process starts only once."""
    return load_model(model_folder)


def made(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("seconds", "num_segments"),
    [(0.6, 1), (1.0, 1), (3.0, 3), (9.4, 9), (9.7, 10), (10.0, 10), (25.0, 25)],
)
def test_the_number_of_segments_follows_from_the_length(model, tmp_path, seconds, num_segments):
    path = made(tmp_path, "a.mp4", clip(seconds, fps=10.0))

    found = model.predict(path)

    assert found.num_segments == num_segments
    assert found.note == ""
    assert found.video == str(path)
    assert all(0 <= e.start_s < e.end_s <= num_segments for e in found.events)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (clip(0.3, fps=10.0), r"too short: 0\.3\d? s of (audio|video), but a segment is 1 s"),
        (clip(audio=False), "no audio stream; an event must be both visible and audible"),
        (clip(video=False), "no video stream; an event must be both visible and audible"),
        (b"These are words, not pictures.\n" * 50, "not a media file"),
        (b"", r"the file is empty \(0 bytes\)"),
        (clip()[:9000], "not a media file, or truncated before its index"),
    ],
    ids=["0.3 s", "mute", "audio only", "text", "empty", "without its end"],
)
def test_an_unusable_file_is_refused_with_the_reason(model, tmp_path, content, says):
    path = made(tmp_path, "a.mp4", content)

    with pytest.raises(MediaError, match=says) as refused:
        model.predict(path)

    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
    assert "data.num_segments" not in str(refused.value)  # no setting of a prediction


def test_a_file_that_does_not_exist_is_named(model, tmp_path):
    with pytest.raises(StorageError, match=r"nothing\.mp4: no such file"):
        model.predict(tmp_path / "nothing.mp4")


def test_a_part_of_a_video_that_is_not_predicted_is_noted(model, tmp_path):
    path = made(tmp_path, "a.mp4", clip(10.0, sound_s=4.0))

    found = model.predict(path)

    assert found.num_segments == 4
    assert re.fullmatch(r"its audio ends at 4\.\d\d s of 10\.00 s", found.note)


@needs_ffmpeg
def test_a_long_video_is_predicted_to_its_end(model, tmp_path):
    """A coded file of 120 s, twelve times as long as the training videos."""
    found = model.predict(coded(tmp_path / "long.mp4", *X264, seconds=120, fps=8))

    assert found.num_segments == 120
    assert np.isfinite(found.probabilities).all()


@needs_ffmpeg
def test_the_prediction_of_a_long_video_is_that_of_its_features(model, tmp_path):
    """It is decoded and scored in pieces; its features are computed from the whole file here."""
    path = coded(tmp_path / "long.mp4", *X264, seconds=47, fps=8)
    timeline = Timeline(num_segments=47, segment_s=1.0)
    extractor = ExtractorRecipe(timeline, ExtractConfig())()
    (features,) = extractor.embed([extractor.prepare(path.read_bytes())])

    found = model.predict(path)

    expected_MK = model.probabilities(features.audio_TD, features.visual_TRD)
    np.testing.assert_array_equal(found.probabilities, expected_MK)


class NeedsWholeFile(Descriptors):
    """An extractor whose segments depend on each other, as far as anyone knows."""

    independent_segments = False


def test_an_extractor_that_needs_the_whole_file_refuses_a_long_one_with_a_command(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(any_length, "MAX_WHOLE_S", 24.0)
    decoder = AnyLength(NeedsWholeFile(Timeline(num_segments=T, segment_s=1.0), ExtractConfig()))
    path = made(tmp_path, "short.mp4", clip(23.0, fps=4.0))
    with opened_file(Location.at(path)) as file:
        (piece,) = decoder.pieces(file)
    assert piece.num_segments == 23

    path = made(tmp_path, "long.mp4", clip(25.0, fps=4.0))
    with (
        opened_file(Location.at(path)) as file,
        pytest.raises(MediaError, match=r"more than 24 s long, .*ffmpeg -i IN -f segment"),
    ):
        next(decoder.pieces(file))


def test_a_long_file_that_turns_out_silent_is_refused_after_some_pieces(model, tmp_path):
    silence = np.zeros((1, 35 * 16_000), np.float32)
    path = made(tmp_path, "mute.mp4", write_mp4(grey_frames(35 * 4), 4, silence, 16_000))

    with pytest.raises(MediaError, match=r"mute\.mp4: silent: .* in the first 35 s"):
        model.predict(path)
    assert model.predict(made(tmp_path, "a.mp4", clip(2.0))).num_segments == 2


def test_many_processes_may_wait_to_have_their_pieces_scored(model_folder, tmp_path):
    """A long file comes first; the others are finished before it, and are yielded after it."""
    lengths_s = [65, 31, 2, 33, 1]
    paths = [made(tmp_path, f"{s}.mp4", clip(float(s), fps=2.0)) for s in lengths_s]
    model = load_model(model_folder)

    found = list(model.predict_all(paths, num_processes=2))

    assert [result.num_segments for _, result in found] == lengths_s
    for path, (_, result) in zip(paths, found, strict=True):
        np.testing.assert_array_equal(result.probabilities, model.predict(path).probabilities)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("h264.mkv", (*X264, "-f", "matroska")),
        ("vp8.webm", ("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus", "-ar", 48_000,
                      "-f", "webm")),
        ("sorenson.flv", ("-c:v", "flv1", "-c:a", "libmp3lame", "-flvflags",
                          "no_duration_filesize", "-f", "flv")),
        ("h264.ts", (*X264, "-f", "mpegts")),
        ("fragmented.mp4", (*X264, "-movflags", "frag_keyframe+empty_moov", "-f", "mp4")),
    ],
)  # fmt: skip
def test_a_file_without_a_length_in_its_header_is_predicted(model, tmp_path, name, options):
    """FFmpeg cannot seek in a pipe, so it writes no length."""
    source = coded(tmp_path / "source.mp4", *X264, seconds=6)
    command = ["ffmpeg", "-v", "error", "-i", str(source), *map(str, options), "-"]
    made = subprocess.run(command, capture_output=True, check=True, timeout=60)
    (tmp_path / name).write_bytes(made.stdout)

    assert model.predict(tmp_path / name).num_segments == 6


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options", "num_segments"),
    [
        ("portrait.mp4", (*X264, "-vf", "scale=96:160"), 10),
        ("rotated.mp4", (*X264, "-metadata:s:v", "rotate=90"), 10),
        ("slow.mp4", (*X264, "-r", 5.9), 10),
        ("bframes.avi", ("-c:v", "mpeg4", "-bf", 2, "-c:a", "libmp3lame"), 10),
        ("clip.ts", X264, 10),
        ("av1.mp4", ("-c:v", "libsvtav1", "-preset", 12, "-svtav1-params", "film-grain=0"), 10),
        ("intra_refresh.mp4",
         (*X264[:2], "-x264-params", "intra-refresh=1:keyint=50", *X264[4:]), 10),
        ("cut_before_keyframe.mp4", None, 6),
    ],
)  # fmt: skip
def test_unusual_files_are_predicted(model, tmp_path, name, options, num_segments):
    if options is None:  # an edit list hides the frames before the cut
        coded(tmp_path / "whole.mp4", *X264, "-g", 50, seconds=12)
        ffmpeg("-ss", 4.4, "-i", tmp_path / "whole.mp4", "-t", 6, "-c", "copy", tmp_path / name)
    else:
        coded(tmp_path / name, *options)

    assert model.predict(tmp_path / name).num_segments == num_segments


@needs_ffmpeg
def test_a_late_start_of_the_video_stream_is_refused_with_the_times(model, tmp_path):
    source = coded(tmp_path / "source.mp4", *X264, seconds=10)
    late = tmp_path / "late.mp4"
    ffmpeg("-i", source, "-itsoffset", 2, "-i", source, "-map", "1:v", "-map", "0:a", "-c", "copy",
           "-t", 9, late)  # fmt: skip

    with pytest.raises(MediaError, match=r"no frames from 0\.00 s to 2\.00 s"):
        model.predict(late)


@needs_ffmpeg
def test_a_truncated_file_is_refused(model, tmp_path):
    whole = coded(tmp_path / "whole.mp4", *X264, "-movflags", "faststart", seconds=10)
    content = whole.read_bytes()
    cut = made(tmp_path, "cut.mp4", content[: int(0.6 * len(content))])

    with pytest.raises(MediaError, match=r"cut off: the header promises .* until .* ends at .* s"):
        model.predict(cut)


# Many files ------------------------------------------------------------------------------------


def predict(*arguments: object) -> int:
    return main(["predict", *map(str, arguments)])


def test_each_unusable_source_is_one_error_line_and_the_others_are_predicted(
    model_folder, tmp_path, capsys
):
    (tmp_path / "no media").mkdir()
    made(tmp_path, "no media/notes.md", b"#")
    good = [made(tmp_path, f"{name}.mp4", clip(2.0)) for name in "ab"]
    bad = [made(tmp_path, "empty.mp4", b""), made(tmp_path, "words.mp4", b"words " * 99)]

    status = predict(
        model_folder, good[0], bad[0], tmp_path / "none.mp4", bad[1], tmp_path / "no media", good[1]
    )

    shown = capsys.readouterr()
    assert status == 1
    errors = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 4
    assert "no such file or folder" in errors[0]
    assert "no media file in this folder" in errors[1]
    assert "0 bytes" in errors[2]
    assert "not a media file" in errors[3]
    assert "Traceback" not in shown.err
    assert [line for line in shown.out.splitlines() if "segments" in line] == [
        line for line in shown.out.splitlines() if line.startswith(str(tmp_path))
    ]
    assert f"{good[0]}: 2 segments" in shown.out
    assert f"{good[1]}: 2 segments" in shown.out
    last = shown.err.splitlines()[-1]
    assert re.fullmatch(r"\d+ events in 2 files, 2 files failed, 2 sources could not be used", last)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["MODEL"], "name a model folder and at least one video"),
        ([], "name a model folder and at least one video"),
        (["MODEL", "none.mp4"], "none.mp4: no such file or folder"),
        (["MODEL", "v.mp4", "--frmat", "vtt"], "no option --frmat"),
        (["MODEL", "v.mp4", "--format", "doc", "--out", "o"], "--format: no format 'doc'; there"),
        (["MODEL", "v.mp4", "--format", "vtt"], "--format: nothing is written without a folder"),
        (["MODEL", "v.mp4", "--out"], "argument --out: expected one argument"),
        (["MODEL", "v.mp4", "--processes", "0"], "--processes: '0' is not a number of processes"),
        (["MODEL", "v.mp4", "--hop", "some"], "--hop: 'some' is not a number of seconds"),
        (["MODEL", "v.mp4", "--processes", "two"], "--processes: 'two' is not a number"),
        (["MODEL", "v.mp4", "--weights", "vggish"], "--weights: 'vggish' is not NETWORK=FILE"),
        (["MODEL", "v.mp4", "--weights", "vgg=a.pth"], "has no network 'vgg'"),
        (["MODEL", "v.mp4", "--plugins", "nothing_here"], "plugins: nothing_here: cannot be impo"),
        (["v.mp4", "v.mp4"], "v.mp4: not a model folder: no config.json"),
        (["none", "v.mp4"], "none: not a model folder: no config.json"),
        (["MODEL", "s3://key:secret@bucket/v.mp4"], "error: "),
    ],
)
def test_an_invalid_command_prints_one_line_and_exits_with_2(
    model_folder, tmp_path, monkeypatch, capsys, arguments, says
):
    monkeypatch.chdir(tmp_path)
    made(tmp_path, "v.mp4", clip(1.0))

    status = predict(*[model_folder if word == "MODEL" else word for word in arguments])

    shown = capsys.readouterr()
    assert status == 2
    assert shown.err.startswith("error: ")
    assert len(shown.err.splitlines()) == 1
    assert says in shown.err
    assert "key:secret" not in shown.err
    assert shown.out == ""


def test_sources_may_follow_options_and_outputs_are_written(model_folder, tmp_path, capsys):
    video = made(tmp_path, "in/v.mp4", clip(3.0))

    formats = ["csv", "json", "parquet", "vtt", "srt", "audacity"]
    status = predict(model_folder, "--out", tmp_path / "out", video, "--format", *formats)

    assert status == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "events.csv", "events.parquet", "segments.parquet", "predictions.json", "v.vtt", "v.srt",
        "v.txt", "failures.txt", "events.html",
    }  # fmt: skip
    assert (tmp_path / "out" / "failures.txt").read_text() == ""
    shown = capsys.readouterr()
    assert f"written to {tmp_path / 'out'}" in shown.err
    events = pd.read_csv(tmp_path / "out" / "events.csv")
    expected = load_model(model_folder).predict(video).to_dataframe()
    pd.testing.assert_frame_equal(events, expected, check_dtype=False)
    stored = pq.read_table(tmp_path / "out" / "events.parquet").to_pandas()
    pd.testing.assert_frame_equal(stored, expected, check_dtype=False)
    assert shown.out.splitlines()[0].startswith(f"{video}: 3 segments")
    assert len(shown.out.splitlines()) == 1 + len(events)


def test_files_of_a_folder_are_found_by_suffix_and_only_once(tmp_path, monkeypatch):
    for name in ("a.mp4", "b/A.MKV", "b/a.webm", "notes.txt", "b/.hidden.csv", "odd.dat"):
        made(tmp_path, name, b"x")
    monkeypatch.chdir(tmp_path)

    files, failures = find_files([".", "a.mp4", str(tmp_path / "b"), "odd.dat"])

    assert failures == []
    assert [file.address for file in files] == ["a.mp4", "b/A.MKV", "b/a.webm", "odd.dat"]
    assert [file.name for file in files] == ["a.mp4", "b/A.MKV", "b/a.webm", "odd.dat"]


def test_a_folder_at_a_uri_is_searched(tmp_path):
    made(tmp_path, "deep/a video.mp4", b"x")

    files, _ = find_files([f"file://{tmp_path}"])

    assert [file.address for file in files] == [f"file://{tmp_path}/deep/a video.mp4"]
    assert Location.at(files[0].address).exists()
    assert find_files([f"file://{tmp_path}/nothing"])[1] == [
        f"file://{tmp_path}/nothing: no such file or folder; check the path"
    ]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such names")
def test_names_that_are_not_utf_8_are_reported_and_the_others_found(tmp_path):
    made(tmp_path, "a b#c?.mp4", b"x")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))
    odd.write_bytes(b"x")

    files, failures = find_files([str(tmp_path), str(odd)])

    assert [file.name for file in files] == ["a b#c?.mp4"]
    assert len(failures) == 2
    assert "the names of 1 files or folders in it are not UTF-8; rename them" in failures[0]
    assert failures[1].endswith("the name is not UTF-8; rename it")
    assert all(failure.isascii() for failure in failures)


def test_files_of_the_same_name_do_not_overwrite_each_other(tmp_path):
    one = prediction(np.array([[True]]), labels=("one",))
    names = ["v.mp4", "sub/v.mp4", "v.mkv", "V.mp4", "v-2.mp4", "v.mp4"]

    write_predictions([(name, one) for name in names], [], Location.at(tmp_path), ["vtt"])

    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.vtt"))
    assert len(written) == len(names)
    assert {"v.vtt", "sub/v.vtt"} <= {*written}
    assert len({name.casefold() for name in written}) == len(names)


def test_names_that_cannot_be_files_are_changed_and_lose_nothing(tmp_path):
    one = prediction(np.array([[True]]), labels=("one",))
    names = ["a\\b.mp4", "x" * 245 + ".mp4", "\u00e4" * 122 + ".mp4", "failures.mp4"]

    failures = write_predictions(
        [(name, one) for name in names], ["v.mp4: empty"], Location.at(tmp_path),
        ["csv", "audacity", "elan"],
    )  # fmt: skip

    assert failures == ["v.mp4: empty"]
    assert (tmp_path / "failures.txt").read_text() == "v.mp4: empty\n"
    stems = {"a_b", "x" * 200, "\u00e4" * 100, "failures-2"}
    assert {path.stem for path in tmp_path.glob("*.eaf")} == stems
    assert {path.stem for path in tmp_path.glob("*.txt")} == {*stems, "failures"}


def test_a_file_that_cannot_be_written_is_a_failure_of_its_video(tmp_path):
    one = prediction(np.array([[True]]), labels=("one",), video="v.mp4")
    (tmp_path / "v.vtt").mkdir()

    failures = write_predictions(
        [("v.mp4", one), ("w.mp4", one)], [], Location.at(tmp_path), ["csv", "vtt"]
    )

    assert len(pd.read_csv(tmp_path / "events.csv")) == 2
    assert (tmp_path / "w.vtt").exists()
    assert failures[0].startswith("v.mp4: ")
    assert (tmp_path / "failures.txt").read_text() == f"{failures[0]}\n"


def test_output_files_without_events_have_the_same_columns(tmp_path):
    nothing = prediction(np.zeros((3, 2), dtype=bool), background=True)

    for number, predictions in enumerate(([], [("v.mp4", nothing)])):
        out = tmp_path / str(number)
        formats = ["csv", "json", "parquet", "vtt", "srt"]
        write_predictions(predictions, ["v.mp4: empty"], Location.at(out), formats)

        assert (out / "events.csv").read_text() == "video,label,modality,start_s,end_s,confidence\n"
        assert pq.read_table(out / "events.parquet").schema.equals(EVENTS_SCHEMA)
        assert (out / "failures.txt").read_text() == "v.mp4: empty\n"
    assert (tmp_path / "1" / "v.vtt").read_text().strip() == "WEBVTT"
    assert pq.read_table(tmp_path / "1" / "segments.parquet").num_rows == 6


def test_class_names_survive_a_round_trip_through_csv(tmp_path):
    made = prediction(np.ones((2, 3), dtype=bool), labels=CLASSES, video='a, "b".mp4')

    write_predictions([("a.mp4", made)], [], Location.at(tmp_path), ["csv"])

    read = pd.read_csv(tmp_path / "events.csv")
    assert sorted(read["label"]) == sorted(CLASSES)
    assert set(read["video"]) == {'a, "b".mp4'}


def test_predictions_are_in_the_order_of_the_files_with_any_number_of_processes(
    model_folder, tmp_path
):
    paths = [made(tmp_path, f"{n}.mp4", clip(1.0 + n % 3)) for n in range(5)]
    model = load_model(model_folder)

    alone = [result for _, result in model.predict_all(paths)]
    together = list(model.predict_all(paths, num_processes=2))

    assert [name for name, _ in together] == [str(path) for path in paths]
    for one, (_, other) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_an_abandoned_call_does_not_affect_the_next(model_folder, tmp_path):
    lengths_s = [1.0, 120.0, 120.0]  # two files are in the middle when the call ends
    paths = [made(tmp_path, f"{n}.mp4", clip(s, fps=2.0)) for n, s in enumerate(lengths_s)]
    model = load_model(model_folder)

    for _ in model.predict_all(paths):
        break

    assert model.predict(paths[0]).num_segments == 1


def test_parsing_predicts_audio_and_visual_events(parsing_folder, tmp_path, capsys):
    video = made(tmp_path, "v.mp4", clip(4.0))

    found = load_model(parsing_folder).predict(video)

    assert len(found.columns) == 2 * len(CLASSES)
    assert {column.modality for column in found.columns} == {"audio", "visual"}
    assert found.probabilities.shape == (4, 2 * len(CLASSES))


def test_event_times_follow_the_segment_length(tmp_path):
    folder = write_folder(tmp_path / "model", segment_s=0.5)
    video = made(tmp_path, "v.mp4", clip(4.0))

    found = load_model(folder).predict(video)

    assert found.num_segments == 8
    assert found.segment_s == 0.5
    assert all((event.end_s * 2).is_integer() for event in found.events)


def test_non_finite_probabilities_are_refused(tmp_path):
    folder = write_folder(tmp_path / "model", scale=float("nan"))

    with pytest.raises(MediaError, match="values that are no numbers for this file"):
        load_model(folder).predict(made(tmp_path, "v.mp4", clip(1.0)))


def test_decoding_processes_import_neither_torch_nor_pandas():
    code = (
        "import sys; import distributed_avel.features.any_length; "
        "sys.exit(bool({'torch', 'pandas', 'ray'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_time_limit_of_the_first_piece_allows_for_reading_the_packets(tmp_path):
    timeline = Timeline(num_segments=T, segment_s=1.0)
    in_pieces = AnyLength(Descriptors(timeline, ExtractConfig()))
    whole = AnyLength(NeedsWholeFile(timeline, ExtractConfig()))

    for seconds, factor, factor_of_whole in [(3.0, 1.0, 1.0), (100.0, 2.5, 10.0)]:
        path = made(tmp_path, "a.mp4", clip(seconds, fps=4.0))
        with opened_file(Location.at(path)) as file:
            assert in_pieces.timeout_factor(file) == pytest.approx(factor, rel=0.02)
            assert whole.timeout_factor(file) == pytest.approx(factor_of_whole, rel=0.02)


def test_unusable_sources_are_refused_before_the_model_is_loaded(tmp_path):
    from argparse import Namespace

    from distributed_avel.predict.files import predict_files

    options = Namespace(
        model="nowhere", sources=[str(tmp_path)], out=None, format=None, processes=None, gpu=False,
        hop=None, weights=[], weights_dir=None, plugins=[],
    )  # fmt: skip
    with pytest.raises(DatasetError, match="no media file in this folder"):
        predict_files(options)
