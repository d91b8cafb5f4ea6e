import io
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from media.clips import TIMELINE, clip, grey_frames, tones

from distributed_avel.errors import MediaError
from distributed_avel.media.audio import LogMel, read_audio, segments_of_audio
from distributed_avel.media.write import write_mp4
from distributed_avel.timeline import Timeline

VGGISH = Path(__file__).parents[1] / "data" / "parity" / "vggish.npz"


def with_sound(wave_CN: np.ndarray, rate_hz: int = 16_000) -> bytes:
    return write_mp4(grey_frames(80), 8, wave_CN.astype(np.float32), rate_hz)


def loudest_hz(wave_N: np.ndarray, rate_hz: int) -> float:
    return np.abs(np.fft.rfft(wave_N)).argmax() * rate_hz / len(wave_N)


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels_become_one_waveform_on_the_timeline(rate_hz, channels):
    wave_N = read_audio(clip(rate_hz=rate_hz, channels=channels), TIMELINE, 16_000)

    assert wave_N.shape == (160_000,)
    assert wave_N.dtype == np.float32
    assert np.abs(wave_N).max() <= 1.0
    for segment in range(10):
        heard = wave_N[TIMELINE.audio_span(segment, 16_000)]
        assert loudest_hz(heard, 16_000) == pytest.approx(400 + 100 * segment, abs=2)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_resampling_does_not_shift_audio(rate_hz):
    rng = np.random.default_rng(0)
    clicks = np.zeros((1, 10 * rate_hz))
    starts_s = np.sort(rng.uniform(0.2, 9.8, 30))
    clicks[0, np.rint(starts_s * rate_hz).astype(int)] = 0.9

    wave_N = read_audio(with_sound(clicks, rate_hz), TIMELINE, 16_000)

    expected = np.zeros(160_000)
    expected[np.rint(starts_s * 16_000).astype(int)] = 1
    lags = np.arange(-40, 41)
    correlation = [np.dot(np.roll(expected, lag), wave_N) for lag in lags]
    assert abs(lags[np.argmax(correlation)]) <= 2


def test_channels_are_averaged():
    left = tones(10, 16_000)[0]
    right = np.roll(left, 7) * 0.5

    mixed = read_audio(with_sound(np.stack([left, right])), TIMELINE, 16_000)
    alone = read_audio(with_sound(((left + right) / 2)[None]), TIMELINE, 16_000)

    assert np.sqrt(np.mean((mixed - alone) ** 2)) < 0.01 * np.sqrt(np.mean(alone**2)) + 2e-3


def test_only_the_first_ten_seconds_of_a_long_file_are_read():
    wave_N = read_audio(clip(seconds=60), TIMELINE, 16_000)

    assert wave_N.shape == (160_000,)
    assert loudest_hz(wave_N[-16_000:], 16_000) == pytest.approx(1300, abs=2)


def test_a_short_missing_tail_is_padded_with_silence():
    wave_N = read_audio(clip(sound_s=9.6), TIMELINE, 16_000)

    assert np.abs(wave_N[:153_000]).max() > 0.2
    assert np.abs(wave_N[-4_000:]).max() == 0.0


@pytest.mark.parametrize(("sound_s", "says"), [(9.3, "9.3"), (0.5, "0.5"), (5.0, "5.0")])
def test_audio_shorter_than_the_timeline_is_refused_with_both_lengths(sound_s, says):
    with pytest.raises(MediaError, match=f"too short: {says}.* s of audio, but 10 s are needed"):
        read_audio(clip(sound_s=sound_s), TIMELINE, 16_000)


def test_complete_silence_is_refused_and_partial_silence_is_not():
    with pytest.raises(MediaError, match="silent"):
        read_audio(with_sound(np.zeros((1, 160_000))), TIMELINE, 16_000)

    partly = tones(10, 16_000)
    partly[:, 30_000:] = 0
    assert np.abs(read_audio(with_sound(partly), TIMELINE, 16_000)[40_000:]).max() < 1e-3


def test_silence_in_the_timeline_is_refused_even_if_audio_follows():
    late = tones(20, 16_000)
    late[:, :170_000] = 0
    with pytest.raises(MediaError, match="first 10 s"):
        read_audio(write_mp4(grey_frames(160), 8, late, 16_000), TIMELINE, 16_000)


def test_integer_samples_are_scaled_to_unit_range():
    # tested without a file, because a WAV file has no video stream and is refused
    from av import AudioFrame

    from distributed_avel.media.audio import _one_channel

    packed = np.array([[-32768, 32767, 0, 16384]], dtype=np.int16)
    frame = AudioFrame.from_ndarray(packed, format="s16", layout="stereo")
    assert _one_channel(frame).tolist() == pytest.approx([-0.5 / 32768, 0.25], abs=1e-7)

    eight_bit = np.array([[0, 128, 255]], dtype=np.uint8)
    frame = AudioFrame.from_ndarray(eight_bit, format="u8", layout="mono")
    assert _one_channel(frame).tolist() == [-1.0, 0.0, 127 / 128]


def test_an_audio_file_is_refused_for_lack_of_a_video_stream():
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes((tones(10, 16_000) * 32767).astype("<i2").tobytes())
    with pytest.raises(MediaError, match="no video stream"):
        read_audio(file.getvalue(), TIMELINE, 16_000)


def test_log_mel_equals_the_published_vggish():
    rng = np.random.default_rng(zlib.crc32(b"public/vggish/input/waveform"))
    t = np.arange(160_000) / 16_000
    sweep = 0.4 * np.sin(2 * np.pi * (200 * t + 150 * t**2))
    wave_N = (sweep + 0.05 * rng.standard_normal(160_000)).astype(np.float32)

    mel_TFM = LogMel()(segments_of_audio(wave_N, TIMELINE, 16_000))

    assert mel_TFM.shape == (10, 98, 64)
    with np.load(VGGISH) as reference:
        np.testing.assert_allclose(mel_TFM[:, :96], reference["log_mel"], atol=1e-5)


def test_log_mel_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    log_mel = LogMel(sample_rate_hz=8_000, window_s=0.02, num_bands=12, high_hz=3_500, offset=0.1)
    wave_N = rng.normal(0, 0.1, 2_000).astype(np.float32)

    def mel(hertz):
        return 1127.0 * np.log(1 + hertz / 700)

    edges = np.linspace(mel(125.0), mel(3_500.0), 14)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(160) / 160)
    expected = np.zeros((1 + (2_000 - 160) // 80, 12))
    for f in range(len(expected)):
        spectrum = np.abs(np.fft.rfft(wave_N[80 * f : 80 * f + 160] * window, 256))
        for m in range(12):
            for k, magnitude in enumerate(spectrum):
                at = mel(k * 8_000 / 256)
                up = (at - edges[m]) / (edges[m + 1] - edges[m])
                down = (edges[m + 2] - at) / (edges[m + 2] - edges[m + 1])
                expected[f, m] += max(0.0, min(up, down)) * magnitude
    np.testing.assert_allclose(log_mel(wave_N[None])[0], np.log(expected + 0.1), atol=1e-4)


@given(
    wave_TN=arrays(np.float32, (3, 1_600), elements=st.floats(-1, 1, width=32)),
    row=st.integers(0, 2),
)
def test_log_mel_of_a_row_does_not_depend_on_other_rows(wave_TN, row):
    together = LogMel()(wave_TN)

    assert np.isfinite(together).all()
    np.testing.assert_array_equal(together[row], LogMel()(wave_TN[row : row + 1])[0])


def test_audio_shorter_than_one_window_is_refused():
    with pytest.raises(ValueError, match="399 samples are fewer than the 400 samples of a window"):
        LogMel()(np.zeros((1, 399), dtype=np.float32))


def test_segments_of_uneven_sample_counts_are_cut_to_the_shortest():
    timeline = Timeline(num_segments=3, segment_s=1 / 3)
    wave_N = np.arange(100, dtype=np.float32)

    segments_TN = segments_of_audio(wave_N, timeline, 100)

    assert segments_TN.shape == (3, 33)
    assert segments_TN[:, 0].tolist() == [0.0, 33.0, 67.0]
