"""Files that are decoded in pieces have exactly the frames and samples of the whole file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from media.clips import clip, grey_frames, tones
from media.coded import coded, ffmpeg

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import MediaError
from distributed_avel.features.any_length import AnyLength
from distributed_avel.features.base import ExtractorRecipe
from distributed_avel.media import audio
from distributed_avel.media.audio import read_audio, segments_of_audio
from distributed_avel.media.files import opened_file
from distributed_avel.media.pieces import PiecewiseMedia, cut_into_pieces
from distributed_avel.media.video import sample_frames
from distributed_avel.media.write import write_mp4
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac")
RATE_HZ = 16_000


@pytest.fixture
def short_overlap(monkeypatch):
    """Hold back half a second of audio, so that files of some seconds leave the buffer."""
    monkeypatch.setattr(audio, "_OVERLAP_S", 0.5)


@pytest.mark.parametrize(
    ("num_segments", "size", "lengths"),
    [(1, 10, [1]), (10, 10, [10]), (19, 10, [19]), (20, 10, [10, 10]), (29, 10, [10, 19])],
)
def test_a_video_is_cut_into_pieces_that_cover_it_and_are_not_short(num_segments, size, lengths):
    pieces = cut_into_pieces(num_segments, size)

    assert [len(piece) for piece in pieces] == lengths
    assert [t for piece in pieces for t in piece] == [*range(num_segments)]


def assert_pieces_equal_the_whole(
    path: Path, timeline: Timeline, size: int, *, sampling: str = "time", per_segment: int = 8
) -> None:
    """Compare frames, their times and the segments of audio, bit for bit."""
    content = path.read_bytes()
    options = {"per_segment": per_segment, "size_hw": (32, 40), "sampling": sampling}
    frames = sample_frames(content, timeline, **options)
    waves_TN = segments_of_audio(read_audio(content, timeline, RATE_HZ), timeline, RATE_HZ)
    with opened_file(Location.at(path)) as file:
        whole = PiecewiseMedia(file, timeline, cut_into_pieces(timeline.num_segments, size))
        assert len(whole.pieces) > 1
        segment = 0
        for piece in whole:
            piece_waves_TN = segments_of_audio(
                read_audio(piece, piece.timeline, RATE_HZ), piece.timeline, RATE_HZ
            )
            piece_frames = sample_frames(piece, piece.timeline, **options)
            assert len(np.unique(piece_frames.index_TS)) == len(piece_frames.frames_FHW3)
            for t in range(piece.timeline.num_segments):
                np.testing.assert_array_equal(piece_waves_TN[t], waves_TN[segment])
                np.testing.assert_array_equal(piece_frames.segment(t), frames.segment(segment))
                np.testing.assert_array_equal(
                    piece_frames.times_F[piece_frames.index_TS[t]],
                    frames.times_F[frames.index_TS[segment]],
                )
                segment += 1
        assert segment == timeline.num_segments
        whole.close()


@needs_ffmpeg
@pytest.mark.usefixtures("short_overlap")
@pytest.mark.parametrize(
    ("name", "options", "making"),
    [
        ("plain.mp4", X264, {}),
        ("odd_rates.mkv", (*X264[:4], "-c:a", "libopus", "-ar", 48_000, "-ac", 2),
         {"fps": "24000/1001"}),
        ("same_rate.mp4", X264, {"rate_hz": RATE_HZ}),
        ("slow.mp4", (*X264, "-r", 2.3), {}),
        ("clip.ts", X264, {}),
        ("bframes.avi", ("-c:v", "mpeg4", "-bf", 2, "-c:a", "libmp3lame"), {}),
        ("rotated.mp4", (*X264, "-metadata:s:v", "rotate=90"), {}),
        ("sorenson.flv", ("-c:v", "flv1", "-c:a", "libmp3lame"), {}),
    ],
)  # fmt: skip
def test_pieces_have_the_frames_and_samples_of_the_whole_file(tmp_path, name, options, making):
    path = coded(tmp_path / name, *options, seconds=7, **making)

    assert_pieces_equal_the_whole(path, Timeline(num_segments=7, segment_s=1.0), 2)


@needs_ffmpeg
@pytest.mark.usefixtures("short_overlap")
def test_pieces_of_a_file_with_an_edit_list_are_those_of_the_whole_file(tmp_path):
    coded(tmp_path / "whole.mp4", *X264, "-g", 50, seconds=12)
    ffmpeg("-ss", 4.4, "-i", tmp_path / "whole.mp4", "-t", 6, "-c", "copy", tmp_path / "cut.mp4")

    assert_pieces_equal_the_whole(tmp_path / "cut.mp4", Timeline(num_segments=6, segment_s=1.0), 2)


@pytest.mark.usefixtures("short_overlap")
@pytest.mark.parametrize("sampling", ["time", "published"])
@pytest.mark.parametrize("segment_s", [1.0, 0.96, 1 / 3, 0.123456])
def test_pieces_are_exact_for_any_length_of_a_segment_and_both_samplings(
    tmp_path, segment_s, sampling
):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip(7.0, fps=25.0, rate_hz=44_100))
    timeline = Timeline(num_segments=int(6.9 / segment_s), segment_s=segment_s)

    assert_pieces_equal_the_whole(path, timeline, 3, sampling=sampling)


@pytest.mark.usefixtures("short_overlap")
def test_a_gap_in_the_audio_is_silence_in_pieces_too(tmp_path):
    """The pictures end 4 s late; the sound lacks 0.4 s at the end of the timeline."""
    path = tmp_path / "a.mp4"
    path.write_bytes(clip(8.0, fps=10.0, sound_s=6.6))

    assert_pieces_equal_the_whole(path, Timeline(num_segments=7, segment_s=1.0), 2)


@pytest.mark.usefixtures("short_overlap")
def test_a_still_picture_is_a_frame_of_each_piece(tmp_path):
    path = tmp_path / "a.mp4"
    times_s = [0.0, *np.arange(41, 48) / 8]
    content = write_mp4(grey_frames(8), 8, tones(6.0, RATE_HZ), RATE_HZ, times_s=times_s)
    path.write_bytes(content)
    timeline = Timeline(num_segments=6, segment_s=1.0)

    assert_pieces_equal_the_whole(path, timeline, 2)


@pytest.mark.usefixtures("short_overlap")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (write_mp4(grey_frames(64), 8, np.zeros((1, 8 * RATE_HZ), np.float32), RATE_HZ), "silent"),
        (clip(8.0, sound_s=3.0),
         r"too short: 3\.\d\d s of audio, but 8 s are needed; there is none from 3\.\d\d s"),
    ],
)  # fmt: skip
def test_what_is_known_only_at_the_end_refuses_the_file_as_for_the_whole(tmp_path, content, says):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    timeline = Timeline(num_segments=8, segment_s=1.0)

    with pytest.raises(MediaError, match=says) as of_whole:
        read_audio(content, timeline, RATE_HZ)
    with opened_file(Location.at(path)) as file, pytest.raises(MediaError) as of_pieces:
        read_all(PiecewiseMedia(file, timeline, cut_into_pieces(8, 2)))

    assert str(of_pieces.value) == str(of_whole.value)


def read_all(whole: PiecewiseMedia) -> None:
    for piece in whole:
        read_audio(piece, piece.timeline, RATE_HZ)


def test_descriptors_of_pieces_are_those_of_the_whole_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip(8.0, fps=12.0, rate_hz=22_050))
    timeline = Timeline(num_segments=8, segment_s=1.0)
    extractor = ExtractorRecipe(timeline, ExtractConfig())()
    audio_TD, visual_TRD = extractor.prepare(path.read_bytes())

    with opened_file(Location.at(path)) as file:
        prepared = [
            extractor.with_timeline(piece.timeline).prepare(piece)
            for piece in PiecewiseMedia(file, timeline, cut_into_pieces(8, 3))
        ]

    np.testing.assert_array_equal(np.concatenate([audio for audio, _ in prepared]), audio_TD)
    np.testing.assert_array_equal(np.concatenate([visual for _, visual in prepared]), visual_TRD)


def test_a_piece_can_be_decoded_once_per_setting(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip(4.0))
    timeline = Timeline(num_segments=4, segment_s=1.0)

    with opened_file(Location.at(path)) as file:
        _, second = PiecewiseMedia(file, timeline, cut_into_pieces(4, 2))
        wave_N = read_audio(second, second.timeline, RATE_HZ)  # the first one is left out
        with pytest.raises(ValueError, match="piece 1 has been decoded before"):
            read_audio(second, second.timeline, RATE_HZ)
        assert len(read_audio(second, second.timeline, 8000)) == 2 * 8000

    np.testing.assert_array_equal(
        wave_N, read_audio(path.read_bytes(), timeline, RATE_HZ)[2 * RATE_HZ :]
    )


def test_readers_of_a_file_have_positions_of_their_own(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(100)))

    with opened_file(Location.at(path)) as file:
        one, other = file.open(), file.open()
        assert one.read(10) == bytes(range(10))
        assert other.seek(-5, 2) == 95
        assert other.read() == bytes(range(95, 100))
        assert one.read(3) == bytes(range(10, 13))
        assert file.num_bytes == 100


@pytest.mark.usefixtures("short_overlap")
def test_a_timeline_may_start_later_in_the_file(tmp_path):
    """Segments from 0.5 s on have the frames and samples of two halves of segments from 0 s on."""
    path = tmp_path / "a.mp4"
    path.write_bytes(clip(7.0, fps=25.0, rate_hz=RATE_HZ))
    halves = Timeline(num_segments=14, segment_s=0.5)
    frames = sample_frames(path.read_bytes(), halves, 4)
    wave_N = read_audio(path.read_bytes(), halves, RATE_HZ)

    with opened_file(Location.at(path)) as file:
        timeline = Timeline(num_segments=6, segment_s=1.0)
        pieces = PiecewiseMedia(file, timeline, cut_into_pieces(6, 2), start_s=0.5)
        for piece in pieces:
            sampled = sample_frames(piece, piece.timeline, 8)
            piece_wave_N = read_audio(piece, piece.timeline, RATE_HZ)
            first = round((0.5 + pieces.pieces[piece.number].start) * RATE_HZ)
            np.testing.assert_array_equal(piece_wave_N, wave_N[first : first + len(piece_wave_N)])
            for t, segment in enumerate(pieces.pieces[piece.number]):
                expected = [frames.segment(2 * segment + 1), frames.segment(2 * segment + 2)]
                np.testing.assert_array_equal(sampled.segment(t), np.concatenate(expected))


def pieces_of(path: Path, num_phases: int = 1) -> dict[int, int]:
    """Decode a file for predictions; return the number of segments of each timeline."""
    extractor = ExtractorRecipe(Timeline(num_segments=10, segment_s=1.0), ExtractConfig())()
    count = dict.fromkeys(range(num_phases), 0)
    with opened_file(Location.at(path)) as file:
        for piece in AnyLength(extractor, num_phases).pieces(file):
            count[piece.phase] += piece.num_segments
    return count


def test_a_shifted_timeline_may_lack_half_a_segment_in_spite_of_rounded_times(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip(4.25, fps=24.0))

    assert pieces_of(path, 4) == {0: 4, 1: 4, 2: 4, 3: 4}


def test_a_shifted_timeline_may_begin_after_the_only_sound(tmp_path):
    path = tmp_path / "a.mp4"
    wave_1N = tones(5.0, RATE_HZ)
    wave_1N[:, round(0.3 * RATE_HZ) :] = 0.0
    path.write_bytes(write_mp4(grey_frames(40), 8, wave_1N, RATE_HZ))

    assert pieces_of(path, 2) == {0: 5, 1: 5}
    wave_1N[:] = 0.0
    path.write_bytes(write_mp4(grey_frames(40), 8, wave_1N, RATE_HZ))
    with pytest.raises(MediaError, match="silent"):
        pieces_of(path, 2)


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 4.6), (0.5, 5.0)])
def test_only_a_shifted_timeline_may_lack_a_tenth_of_a_segment_more(tmp_path, start_s, end_s):
    timeline = Timeline(num_segments=5, segment_s=1.0)

    def decode(seconds: float) -> None:
        path = tmp_path / "a.mp4"
        path.write_bytes(clip(seconds, fps=25.0))
        with opened_file(Location.at(path)) as file:
            whole = PiecewiseMedia(file, timeline, cut_into_pieces(5, 5), start_s)
            (piece,) = whole
            read_audio(piece, timeline, RATE_HZ)
            sample_frames(piece, timeline, 2, (32, 40))
            whole.close()

    decode(end_s - 0.08 * (start_s > 0))
    with pytest.raises(MediaError, match="too short"):
        decode(end_s - 0.16)
