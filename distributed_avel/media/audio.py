"""Decode the audio of a media file: the default track, mono, on the presentation timeline.

PyAV decodes, because decord's audio reader leaks memory and has an offset. Channels are averaged
here, because FFmpeg's downmix weights each by 0.707 and may exceed full scale. soxr (in librosa)
changes the sample rate, because FFmpeg's default filter causes more aliasing in the bands of the
spectrogram.

Shape suffixes used in this file:
    T = segments    N = samples    C = channels    F = spectrogram frames    M = mel bands
    B = frequency bins
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import av
import librosa
import numpy as np
from numpy.typing import NDArray

from distributed_avel.errors import MediaError
from distributed_avel.media.container import CONVERT, MAX_MISSING_SEGMENTS, Media, open_media
from distributed_avel.timeline import Timeline

# Time stamps of real tracks jitter by a few samples; a larger difference is a gap.
_GAP_S = 0.05

# Half a quantization step of 16-bit audio: a track below it is digital silence.
_SILENCE = 2.0**-16


def read_audio(media: bytes, timeline: Timeline, sample_rate_hz: int) -> NDArray[np.float32]:
    """Decode the waveform of the timeline, mono.

    If up to half a segment is missing from the track, it is filled with silence. A track that is
    digital silence throughout is refused: its audio-visual labels must be wrong, and it would train
    the network to ignore audio. A video that is silent in parts is accepted.

    Args:
        media: Content of the file.
        timeline: Segments.
        sample_rate_hz: Sample rate of the result.

    Returns:
        Shape (N,), float32 in [-1, 1], with N = `duration_s * sample_rate_hz`.

    Raises:
        MediaError: The track is missing, damaged, too short, or silent; the message says which.
    """
    with open_media(media) as opened:
        wave_N, rate_hz = _decode(opened, timeline)
    if not np.isfinite(wave_N).all():
        raise MediaError("damaged: the audio contains values that are not finite")
    if np.abs(wave_N).max(initial=0.0) < _SILENCE:
        raise MediaError(
            f"silent: the audio stream is digital silence in the first {timeline.duration_s:g} s; "
            "an event must be both visible and audible"
        )
    if rate_hz != sample_rate_hz:
        wave_N = resampled(wave_N, rate_hz, sample_rate_hz)
    wave_N = librosa.util.fix_length(wave_N, size=round(timeline.duration_s * sample_rate_hz))
    return np.clip(wave_N, -1.0, 1.0)


def resampled(
    wave_N: NDArray[np.float32], rate_hz: int, sample_rate_hz: int
) -> NDArray[np.float32]:
    """Change the sample rate of a waveform from `rate_hz` to `sample_rate_hz`."""
    return librosa.resample(wave_N, orig_sr=rate_hz, target_sr=sample_rate_hz, res_type="soxr_hq")


def segments_of_audio(
    wave_N: NDArray[np.float32], timeline: Timeline, sample_rate_hz: int
) -> NDArray[np.float32]:
    """Split a waveform into segments, shape (T, N).

    All segments have the length of the shortest; they differ by one sample if the length of a
    segment is not an integer number of samples.
    """
    spans = [timeline.audio_span(t, sample_rate_hz) for t in range(timeline.num_segments)]
    num_samples = min(span.stop - span.start for span in spans)
    return np.stack([wave_N[span.start : span.start + num_samples] for span in spans])


@dataclass(frozen=True, kw_only=True, slots=True)
class LogMel:
    """A log-mel spectrogram; the defaults are those of VGGish.

    It uses magnitudes (not powers) of periodic Hann windows without centring or padding, bands that
    are triangular in HTK mel (librosa's are triangular in Hz), and log(x + offset).
    """

    sample_rate_hz: int = 16_000
    window_s: float = 0.025
    hop_s: float = 0.010
    num_bands: int = 64
    low_hz: float = 125.0
    high_hz: float = 7500.0
    offset: float = 0.01

    def __call__(self, wave_TN: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the spectrogram of each row independently.

        Args:
            wave_TN: Waveforms in [-1, 1].

        Returns:
            Shape (T, F, M). F is the number of windows that fit into a row: 98 for one second.

        Raises:
            ValueError: The rows are shorter than one window.
        """
        window, hop = (
            round(seconds * self.sample_rate_hz) for seconds in (self.window_s, self.hop_s)
        )
        if wave_TN.shape[-1] < window:
            raise ValueError(
                f"{wave_TN.shape[-1]} samples are fewer than the {window} samples of a window"
            )
        n_fft = 2 ** (window - 1).bit_length()
        # librosa centres the window in n_fft samples; the padding moves the first window to the
        # first sample and the last window to the end.
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
    """Return the weights from frequency bins to mel bands, shape (n_fft / 2 + 1, M)."""
    bins = librosa.hz_to_mel(np.linspace(0.0, log_mel.sample_rate_hz / 2, n_fft // 2 + 1), htk=True)
    low, high = librosa.hz_to_mel(np.array([log_mel.low_hz, log_mel.high_hz]), htk=True)
    edges = np.linspace(low, high, log_mel.num_bands + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - lower) / (centre - lower)
    falling = (upper - bins[:, None]) / (upper - centre)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def _decode(media: Media, timeline: Timeline) -> tuple[NDArray[np.float32], int]:
    """Decode `duration_s` of the audio track; return the waveform and its sample rate.

    Blocks are concatenated unless the time stamp of a block differs by more than `_GAP_S` from the
    end of the previous block: a later start leaves silence, an earlier one overwrites the overlap.
    """
    wave_N, present_N = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=bool)
    rate_hz, position = 0, 0
    for start_s, samples_N, frame_rate_hz in _blocks(media):
        if not rate_hz:
            rate_hz = frame_rate_hz
            wave_N = np.zeros(round(timeline.duration_s * rate_hz), dtype=np.float32)
            present_N = np.zeros(len(wave_N), dtype=bool)
            position = round((start_s or 0.0) * rate_hz)
        elif rate_hz != frame_rate_hz:
            raise MediaError(
                f"the sample rate changes from {rate_hz} to {frame_rate_hz} Hz; "
                f"convert the file: {CONVERT}"
            )
        if start_s is not None and abs(start_s - position / rate_hz) > _GAP_S:
            position = round(start_s * rate_hz)
        first, last = max(position, 0), min(position + len(samples_N), len(wave_N))
        if first < last:
            wave_N[first:last] = samples_N[first - position : last - position]
            present_N[first:last] = True
        position += len(samples_N)
        if position >= len(wave_N):
            break
    _refuse_missing(present_N, rate_hz, timeline)
    return wave_N, rate_hz


def _refuse_missing(present_N: NDArray[np.bool_], rate_hz: int, timeline: Timeline) -> None:
    """Refuse a track that lacks more than half a segment of the timeline.

    Raises:
        MediaError: Too much is missing; the message names the longest gap, in seconds.
    """
    present_s = float(present_N.sum()) / rate_hz if rate_hz else 0.0
    if timeline.duration_s - present_s <= MAX_MISSING_SEGMENTS * timeline.segment_s:
        return
    edges = np.flatnonzero(np.diff(present_N, prepend=True, append=True)) / max(rate_hz, 1)
    gaps = edges.reshape(-1, 2)
    longest = gaps[np.diff(gaps, axis=1).argmax()] if len(gaps) else (0.0, timeline.duration_s)
    raise MediaError(
        f"too short: {present_s:.2f} s of audio, but {timeline.duration_s:g} s are needed; there "
        f"is none from {longest[0]:.2f} s to {longest[1]:.2f} s"
    )


def _blocks(media: Media) -> Iterator[tuple[float | None, NDArray[np.float32], int]]:
    """Yield blocks of audio: start on the presentation timeline (s), mono samples, rate (Hz)."""
    for frame in media.container.decode(media.audio):
        if frame.sample_rate > 0:
            start_s = None if frame.time is None else frame.time - media.start_s
            yield start_s, _one_channel(frame), frame.sample_rate


def _one_channel(frame: av.AudioFrame) -> NDArray[np.float32]:
    """Average the channels, shape (N,); integers are scaled to [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        return ((samples.astype(np.float32) - 128.0) / 128.0).mean(axis=0)
    if np.issubdtype(samples.dtype, np.integer):
        full_scale = -float(np.iinfo(samples.dtype.str).min)
        return (samples / full_scale).mean(axis=0).astype(np.float32)
    return samples.mean(axis=0, dtype=np.float32)
