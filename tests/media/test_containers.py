"""Common containers and codecs: frames and audio of each second equal those of FFmpeg."""

import shutil
import subprocess

import av
import numpy as np
import pytest
from media.coded import HEIGHT, WIDTH, coded, ffmpeg, heard, numbers, presented

from distributed_avel.errors import MediaError
from distributed_avel.media.audio import read_audio
from distributed_avel.media.video import sample_frames, sample_times
from distributed_avel.timeline import Timeline

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="ffmpeg makes these files; install it to run them"
)

TEN = Timeline(num_segments=10, segment_s=1.0)
RATE_HZ = 16_000

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", 2, "-g", 50, "-c:a", "aac")
INTERLACED = ("-flags", "+ildct+ilme", "-vf", "tinterlace=interleave_top,fieldorder=tff")

ENCODED = {
    "h264.mp4": X264,
    "h264.mov": (*X264[:-1], "pcm_s16le"),
    "h264.mkv": (*X264[:-1], "flac"),
    "h264.ts": X264,
    "h264.flv": X264,
    "h264.avi": (*X264[:-1], "libmp3lame"),
    "h264.3gp": X264,
    "open_gop.mp4": ("-c:v", "libx264", "-x264-params", "open-gop=1:keyint=50:bframes=3"),
    "intra_refresh.mp4": ("-c:v", "libx264", "-x264-params", "intra-refresh=1:keyint=50"),
    "ten_bit.mp4": ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le"),
    "full_chroma.mp4": ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p"),
    "interlaced.mp4": ("-c:v", "libx264", "-preset", "ultrafast", "-x264-params", "tff=1"),
    "hevc.mp4": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
    "hevc.mkv": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params",
                 "log-level=none:keyint=50:open-gop=1"),
    "hevc.ts": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
    "vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-auto-alt-ref", 1,
                 "-lag-in-frames", 8, "-c:a", "libopus", "-ar", 48_000),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", 8,
                 "-c:a", "libopus", "-ar", 48_000),
    "av1.mp4": ("-c:v", "libsvtav1", "-preset", 12),
    "av1.mkv": ("-c:v", "libsvtav1", "-preset", 12, "-c:a", "libopus", "-ar", 48_000),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-b:v", "2M", "-bf", 2, "-c:a", "mp2"),
    "mpeg2.ts": ("-c:v", "mpeg2video", "-b:v", "2M", "-bf", 2, "-c:a", "mp2"),
    "mpeg2_interlaced.mpg": ("-c:v", "mpeg2video", "-b:v", "2M", "-flags", "+ildct+ilme",
                             "-top", 1, "-c:a", "mp2"),
    "bframes.avi": ("-c:v", "mpeg4", "-b:v", "2M", "-bf", 2, "-c:a", "libmp3lame"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-b:v", "2M", "-bf", 2),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", 4, "-c:a", "pcm_s16le"),
    "mjpeg.mov": ("-c:v", "mjpeg", "-q:v", 4, "-c:a", "pcm_s24le"),
    "prores.mov": ("-c:v", "prores", "-c:a", "pcm_s16le"),
    "sorenson.flv": ("-c:v", "flv", "-b:v", "2M", "-c:a", "libmp3lame"),
    "theora.ogv": ("-c:v", "libtheora", "-q:v", 8, "-c:a", "libvorbis"),
    "varying_rate.mp4": (*X264, "-vf", "select='not(mod(n,3))+lt(t,4)+gt(t,7)'", "-vsync", "vfr"),
    "varying_rate.mkv": (*X264, "-vf", "select='not(between(t,3,5.2))'", "-vsync", "vfr"),
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A lossless source of eleven seconds, made once because drawing the frames is slow."""
    lossless = ("-c:v", "ffv1", "-c:a", "pcm_s16le")
    return coded(tmp_path_factory.mktemp("source") / "lossless.mkv", *lossless, seconds=11)


def similarity(ours_N: np.ndarray, theirs_N: np.ndarray) -> float:
    """Return the best correlation within 10 ms; FFmpeg versions differ by the Opus delay, 7 ms."""
    length, most = min(len(ours_N), len(theirs_N)), RATE_HZ // 100
    inner_N = ours_N[most : length - most]
    return max(
        np.corrcoef(inner_N, theirs_N[most + lag : length - most + lag])[0, 1]
        for lag in range(-most, most + 1)
    )


def check_against_ffmpeg(path, timeline=TEN, per_segment=16, *, reader="auto", upright=True):
    """Check that each sample is the frame that ffmpeg presents at its time, and the audio too."""
    height, width = (HEIGHT, WIDTH) if upright else (WIDTH, HEIGHT)
    media = path.read_bytes()
    sampled = sample_frames(media, timeline, per_segment, (height, width), reader=reader)
    wave_N = read_audio(media, timeline, RATE_HZ)

    times_N, pictures_NHW3 = presented(path, height, width)
    frames_FHW3 = sampled.frames_FHW3
    if not upright:  # the stripes are horizontal; rotate both back
        pictures_NHW3, frames_FHW3 = (
            np.rot90(x, axes=(1, 2)) for x in (pictures_NHW3, frames_FHW3)
        )
    assert len(times_N) == len(pictures_NHW3)
    steps_TS = sample_times(timeline, per_segment)
    shown_TS = np.maximum(np.searchsorted(times_N, steps_TS + 1e-4, side="right") - 1, 0)
    expected_TS = numbers(pictures_NHW3)[shown_TS]
    assert len(np.unique(expected_TS)) > min(len(times_N), steps_TS.size) * 0.5
    np.testing.assert_array_equal(numbers(frames_FHW3)[sampled.index_TS], expected_TS)
    np.testing.assert_allclose(
        sampled.times_F[sampled.index_TS], np.maximum(times_N[shown_TS], 0), atol=2e-3
    )

    reference_N = heard(path, RATE_HZ)
    for segment in range(timeline.num_segments):
        span = timeline.audio_span(segment, RATE_HZ)
        ours, theirs = wave_N[span], reference_N[span]
        if len(theirs) > RATE_HZ // 10 and np.abs(theirs).max() > 0.01:
            assert similarity(ours, theirs) > 0.95, segment
    return sampled


@pytest.mark.parametrize("name", ENCODED)
def test_each_container_and_codec_agrees_with_ffmpeg(name, source, tmp_path):
    size = ("-s", "176x144") if name.endswith("3gp") else ()
    ffmpeg("-i", source, *size, *ENCODED[name], tmp_path / name)
    check_against_ffmpeg(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    ["h264.mp4", "open_gop.mp4", "intra_refresh.mp4", "hevc.mkv", "vp9.webm", "varying_rate.mkv"],
)
def test_decord_and_pyav_give_equal_pixels(name, source, tmp_path):
    ffmpeg("-i", source, *ENCODED[name], tmp_path / name)
    media = (tmp_path / name).read_bytes()
    for size_hw in (None, (40, 40), 48):
        ours, theirs = (
            sample_frames(media, TEN, 16, size_hw, reader=reader) for reader in ("decord", "pyav")
        )
        assert (ours.reader, theirs.reader) == ("decord", "pyav")
        np.testing.assert_array_equal(ours.frames_FHW3, theirs.frames_FHW3)
        np.testing.assert_array_equal(ours.index_TS, theirs.index_TS)
        np.testing.assert_allclose(ours.times_F, theirs.times_F, atol=1e-9)


@pytest.mark.parametrize("name", ["h264.mkv", "vp9.webm"])
def test_a_file_without_a_length_in_its_header_is_read(name, source, tmp_path):
    """FFmpeg cannot seek in a pipe, so it writes no length, which decord needs."""
    kind = {"h264.mkv": "matroska", "vp9.webm": "webm"}[name]
    command = ["ffmpeg", "-v", "error", "-i", source, *ENCODED[name], "-f", kind, "-"]
    written = subprocess.run([*map(str, command)], capture_output=True, check=True, timeout=60)
    (tmp_path / name).write_bytes(written.stdout)

    check_against_ffmpeg(tmp_path / name)


def test_frames_of_each_size_have_the_pixels_of_pyav(source, tmp_path):
    """decord pads some widths, and scales chroma differently if only the width changes."""
    ffmpeg("-i", source, *ENCODED["h264.mp4"], tmp_path / "h264.mp4")
    media = (tmp_path / "h264.mp4").read_bytes()
    height, width = sample_frames(media, TEN, 1).frames_FHW3.shape[1:3]
    widths = [8, 12, 16, 24, 33, 40, 48, 72, 96, 100, 112, 129, 160, 171, 224, 256, 299, 384]
    sizes = [(64, w) for w in widths] + [(height, w) for w in widths] + [(h, width) for h in widths]
    readers = set()
    for size_hw in sizes:
        ours, theirs = (
            sample_frames(media, TEN, 1, size_hw, reader=reader) for reader in ("auto", "pyav")
        )
        readers.add(ours.reader)
        np.testing.assert_array_equal(ours.frames_FHW3, theirs.frames_FHW3, err_msg=str(size_hw))
    assert readers == {"decord", "pyav"}


def test_decord_returns_wrong_frames_by_index(source, tmp_path):
    """This is why frames are read in order; if the test fails, decord has been fixed."""
    decord = pytest.importorskip("decord")
    path = tmp_path / "intra_refresh.mp4"
    ffmpeg("-i", source, *ENCODED[path.name], path)
    reader = decord.VideoReader(str(path))
    wanted = np.arange(0, 250, 5)
    assert (numbers(reader.get_batch(wanted).asnumpy()) != wanted).any()


@pytest.mark.parametrize(
    ("fps", "timeline"),
    [
        ("2.5", TEN),
        ("5.9", TEN),
        ("7.5", TEN),
        ("10", Timeline(num_segments=10, segment_s=0.96)),
        ("24000/1001", TEN),
        ("30000/1001", Timeline(num_segments=60, segment_s=1.0)),
        ("30", Timeline(num_segments=20, segment_s=0.5)),
        ("50", Timeline(num_segments=10, segment_s=0.96)),
        ("60", Timeline(num_segments=60, segment_s=0.5)),
    ],
)
def test_each_frame_rate_and_timeline_agrees_with_ffmpeg(fps, timeline, tmp_path):
    seconds = timeline.duration_s + 0.5
    path = coded(tmp_path / "rate.mp4", *X264, seconds=seconds, fps=fps, size="96x32")
    check_against_ffmpeg(path, timeline)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied_as_in_players(degrees, source, tmp_path):
    ffmpeg("-i", source, *X264, tmp_path / "upright.mp4")
    turned = tmp_path / "turned.mp4"
    ffmpeg(
        "-i", tmp_path / "upright.mp4", "-c", "copy", "-metadata:s:v", f"rotate={degrees}", turned
    )
    sampled = check_against_ffmpeg(turned, upright=degrees == 180)
    assert sampled.reader == "pyav"


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("start_s", [0.6, 1.32])
def test_a_cut_without_encoding_gives_no_frame_before_the_cut(suffix, start_s, source, tmp_path):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    ffmpeg("-stream_loop", 1, "-i", source, *X264, "-t", 14, whole)
    ffmpeg("-ss", start_s, "-i", whole, "-t", 11, "-c", "copy", cut)
    assert check_against_ffmpeg(cut).reader == "pyav"


def test_audio_is_read_from_the_default_track(source, tmp_path):
    path = tmp_path / "tracks.mp4"
    other = ("-f", "lavfi", "-i", "sine=1000:r=44100:d=11")
    maps = ("-map", "0:v", "-map", "1:a", "-map", "0:a")
    default = ("-disposition:a:0", 0, "-disposition:a:1", "default")
    ffmpeg("-i", source, *other, *maps, *X264, *default, path)
    check_against_ffmpeg(path)


def test_covers_subtitles_and_a_second_video_track_are_ignored(source, tmp_path):
    cover, subtitles, path = tmp_path / "c.png", tmp_path / "s.srt", tmp_path / "all.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=320x240:d=1", "-frames:v", 1, cover)
    subtitles.write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    inputs = ("-i", source, "-i", subtitles, "-f", "lavfi", "-i", "testsrc=s=64x32:d=11")
    maps = ("-map", "0:v", "-map", "2:v", "-map", "0:a", "-map", "1:s")
    marks = ("-disposition:v:0", "default", "-disposition:v:1", 0)
    attached = ("-attach", cover, "-metadata:s:t", "mimetype=image/png")
    ffmpeg(*inputs, *maps, *X264, *marks, *attached, path)
    check_against_ffmpeg(path)

    song = tmp_path / "song.m4a"
    attached = ("-map", "0:a", "-map", "1", "-c:a", "aac", "-c:v", "copy")
    ffmpeg("-i", source, "-i", cover, *attached, "-disposition:v:0", "attached_pic", song)
    with pytest.raises(MediaError, match="no video stream but a cover picture"):
        sample_frames(song.read_bytes(), TEN, 16)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_late_start_of_the_video_stream_is_refused_with_the_times(suffix, source, tmp_path):
    path = tmp_path / f"late.{suffix}"
    encoded = tmp_path / "encoded.mp4"
    ffmpeg("-i", source, *X264, encoded)
    for late_s, is_refused in ((0.3, False), (2, True)):
        ffmpeg("-i", encoded, "-itsoffset", late_s, "-i", encoded,
               "-map", "1:v", "-map", "0:a", "-c", "copy", path)  # fmt: skip
        if is_refused:
            with pytest.raises(MediaError, match=r"no frames from 0.00 s to [12].\d\d s"):
                sample_frames(path.read_bytes(), TEN, 16)
        else:
            check_against_ffmpeg(path)


def test_missing_frames_in_the_middle_are_refused_with_the_times(source, tmp_path):
    encoded, path = tmp_path / "encoded.ts", tmp_path / "lost.ts"
    ffmpeg("-i", source, *X264, encoded)
    with av.open(encoded) as whole, av.open(path, "w") as lost:
        outputs = {s.index: lost.add_stream_from_template(s) for s in whole.streams}
        for packet in whole.demux():
            time_s = float(packet.pts * packet.time_base) - 1.4 if packet.size else -1.0
            is_lost = packet.stream.type == "video" and 4 <= time_s < 6
            if time_s >= 0 and not is_lost:
                packet.stream = outputs[packet.stream.index]
                lost.mux(packet)
    with pytest.raises(MediaError, match=r"no frames from [34].\d\d s to [56].\d\d s"):
        sample_frames(path.read_bytes(), TEN, 16)


def test_a_codec_without_a_decoder_is_refused_with_a_command(source, tmp_path):
    ffmpeg("-i", source, *X264, tmp_path / "h264.mp4")
    unknown = (tmp_path / "h264.mp4").read_bytes().replace(b"avc1", b"zzz1")
    with pytest.raises(MediaError, match=r"no decoder for the video codec.*ffmpeg -i IN"):
        sample_frames(unknown, TEN, 16)


def test_published_sampling_counts_presented_frames(source, tmp_path):
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    ffmpeg("-stream_loop", 1, "-i", source, *X264, "-t", 14, whole)
    ffmpeg("-ss", 1.32, "-i", whole, "-t", 10, "-c", "copy", cut)
    for path in (whole, cut):
        times_N, pictures_NHW3 = presented(path)
        num_frames = int((times_N < 10 - 1e-4).sum())
        index_TS = [TEN.frame_indices(t, num_frames, 16) for t in range(10)]
        sampled = sample_frames(path.read_bytes(), TEN, 16, (HEIGHT, WIDTH), sampling="published")
        shown_TS = numbers(sampled.frames_FHW3)[sampled.index_TS]
        np.testing.assert_array_equal(shown_TS, numbers(pictures_NHW3)[np.array(index_TS)])
