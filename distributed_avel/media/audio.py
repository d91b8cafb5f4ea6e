"""The sound of a media file: one channel, on the clock of the file, at a rate of choice.

PyAV decodes (decord's audio reader loses memory and lags behind). Channels are averaged
here: FFmpeg's own downmix weighs each by 0.707 and so may exceed full scale. soxr, through
librosa, changes the sample rate: FFmpeg's default filter folds more of what lies above half
the rate back into the bands that a spectrogram looks at.

Shape suffixes used in this file:
    T = segments    N = samples    C = channels    F = spectrogram frames    M = mel bands
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import av
import librosa
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from distributed_avel.errors import MediaError
from distributed_avel.media.container import open_media
from distributed_avel.timeline import Timeline

# What may lack at the end of a track, in segments; it becomes silence (see media/video.py).
MAX_MISSING_SEGMENTS = 0.5

# Time stamps of real tracks jitter by some samples; a difference above this is a gap.
_GAP_S = 0.05

# Below half a step of 16-bit sound: a track that is there, and says nothing.
_SILENCE = 2.0**-16


def read_audio(media: bytes, timeline: Timeline, sample_rate_hz: int) -> NDArray[np.float32]:
    """The waveform of the timeline, shape (N,), float32 in [-1, 1], one channel.

    N is exactly `duration_s * sample_rate_hz`; up to half a segment that the track lacks is
    filled with silence. A track of digital silence is refused: nothing in it can be heard, so
    whatever the labels say about it is a mistake, and it would train the network to ignore
    sound. A video that is silent in parts is welcome.

    Raises:
        MediaError: The track is missing, damaged, too short, or silent throughout; says which.
    """
    with open_media(media) as container:
        wave_N, rate_hz = _decode(container, timeline)
    if not np.isfinite(wave_N).all():
        raise MediaError("damaged: the sound holds values that are not numbers")
    if np.abs(wave_N).max(initial=0.0) < _SILENCE:
        raise MediaError(
            f"silent: the audio stream holds nothing but silence in the first "
            f"{timeline.duration_s:g} s; an event must be both seen and heard"
        )
    if rate_hz != sample_rate_hz:
        wave_N = librosa.resample(
            wave_N, orig_sr=rate_hz, target_sr=sample_rate_hz, res_type="soxr_hq"
        )
    wave_N = librosa.util.fix_length(wave_N, size=round(timeline.duration_s * sample_rate_hz))
    return np.clip(wave_N, -1.0, 1.0)


def segments_of_audio(
    wave_N: NDArray[np.float32], timeline: Timeline, sample_rate_hz: int
) -> NDArray[np.float32]:
    """The waveform cut into segments, shape (T, N).

    All segments are as long as the shortest: they differ by one sample where a segment is
    not a whole number of samples.
    """
    spans = [timeline.audio_span(t, sample_rate_hz) for t in range(timeline.num_segments)]
    num_samples = min(span.stop - span.start for span in spans)
    return np.stack([wave_N[span.start : span.start + num_samples] for span in spans])


@dataclass(frozen=True, kw_only=True, slots=True)
class LogMel:
    """A log-mel spectrogram; the defaults are VGGish's.

    Magnitudes (not powers) of periodic Hann windows without centring or padding; triangular
    bands that are straight lines in HTK mel (librosa's own are straight in hertz); then
    log(x + offset).
    """

    sample_rate_hz: int = 16_000
    window_s: float = 0.025
    hop_s: float = 0.010
    num_bands: int = 64
    low_hz: float = 125.0
    high_hz: float = 7500.0
    offset: float = 0.01

    def __call__(self, wave_TN: NDArray[np.float32]) -> NDArray[np.float32]:
        """The spectrograms of waveforms, each row on its own, shape (T, F, M).

        F counts the windows that lie wholly within a row: 98 in a second.

        Raises:
            ValueError: The rows are shorter than one window.
        """
        window, hop = (
            round(seconds * self.sample_rate_hz) for seconds in (self.window_s, self.hop_s)
        )
        if wave_TN.shape[-1] < window:
            raise ValueError(f"{wave_TN.shape[-1]} samples are less than a window of {window}")
        n_fft = 2 ** (window - 1).bit_length()
        # librosa puts the window in the middle of n_fft samples; the margin moves the first
        # window onto the first sample, and the last one onto the end.
        left = (n_fft - window) // 2
        margin = (left, n_fft - window - left)
        spectrum_TBF = librosa.stft(
            np.pad(wave_TN, [(0, 0)] * (wave_TN.ndim - 1) + [margin]),
            n_fft=n_fft,
            hop_length=hop,
            win_length=window,
            window="hann",
            center=False,
        )
        mel_TFM = np.abs(spectrum_TBF).swapaxes(-1, -2) @ _mel_bands(self, n_fft)
        return np.log(mel_TFM + np.float32(self.offset))


@cache
def _mel_bands(log_mel: LogMel, n_fft: int) -> NDArray[np.float32]:
    """Weights from spectrum bins to mel bands, shape (n_fft / 2 + 1, M)."""
    bins = librosa.hz_to_mel(np.linspace(0.0, log_mel.sample_rate_hz / 2, n_fft // 2 + 1), htk=True)
    low, high = librosa.hz_to_mel(np.array([log_mel.low_hz, log_mel.high_hz]), htk=True)
    edges = np.linspace(low, high, log_mel.num_bands + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - lower) / (centre - lower)
    falling = (upper - bins[:, None]) / (upper - centre)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def _decode(container: InputContainer, timeline: Timeline) -> tuple[NDArray[np.float32], int]:
    """The first `duration_s` of the first audio stream at its own rate, and that rate."""
    wave_N = np.zeros(0, dtype=np.float32)
    rate_hz, position, gaps = 0, 0, 0
    for start_s, samples_N, frame_rate_hz in _frames(container):
        if not rate_hz:
            rate_hz = frame_rate_hz
            wave_N = np.zeros(round(timeline.duration_s * rate_hz), dtype=np.float32)
        elif rate_hz != frame_rate_hz:
            raise MediaError(
                f"damaged: the sample rate changes from {rate_hz} to {frame_rate_hz} Hz"
            )
        start = position
        if start_s is not None and start_s - position / rate_hz > _GAP_S:
            start = min(round(start_s * rate_hz), len(wave_N))
            gaps += start - position
        kept_N = samples_N[: len(wave_N) - start]
        wave_N[start : start + len(kept_N)] = kept_N
        position = start + len(kept_N)
        if position == len(wave_N):
            break
    missing = gaps + len(wave_N) - position
    if not rate_hz or missing > MAX_MISSING_SEGMENTS * timeline.segment_s * rate_hz:
        heard_s = (len(wave_N) - missing) / rate_hz if rate_hz else 0.0
        raise MediaError(
            f"too short: {heard_s:.2f} s of sound, but {timeline.duration_s:g} s are needed"
        )
    return wave_N, rate_hz


def _frames(
    container: InputContainer,
) -> Iterator[tuple[float | None, NDArray[np.float32], int]]:
    """Blocks of decoded sound: when each starts, its samples in one channel, its rate."""
    for frame in container.decode(container.streams.audio[0]):
        start_s, samples_N = frame.time, _one_channel(frame)
        if start_s is not None and start_s < 0:
            samples_N = samples_N[round(-start_s * frame.sample_rate) :]
        if frame.sample_rate > 0:
            yield start_s, samples_N, frame.sample_rate


def _one_channel(frame: av.AudioFrame) -> NDArray[np.float32]:
    """The mean of the channels, shape (N,), whole numbers scaled to [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        return ((samples.astype(np.float32) - 128.0) / 128.0).mean(axis=0)
    if np.issubdtype(samples.dtype, np.integer):
        full_scale = -float(np.iinfo(samples.dtype.str).min)
        return (samples / full_scale).mean(axis=0).astype(np.float32)
    return samples.mean(axis=0, dtype=np.float32)
