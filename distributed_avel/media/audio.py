"""Decode the audio of a media file: the default track, mono, on the presentation timeline.

PyAV decodes, because decord's audio reader leaks memory and has an offset. Channels are averaged
here, because FFmpeg's downmix weights each by 0.707 and may exceed full scale. soxr (in librosa)
changes the sample rate, because FFmpeg's default filter causes more aliasing in the bands of the
spectrogram.

Shape suffixes used in this file:
    T = segments    N = samples    C = channels    F = spectrogram frames    M = mel bands
    B = frequency bins
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cache

import av
import librosa
import numpy as np
import soxr
from numpy.typing import NDArray

from distributed_avel.errors import MediaError
from distributed_avel.media.container import CONVERT, MAX_MISSING_SEGMENTS, Media, open_media
from distributed_avel.media.pieces import MediaPiece, PiecewiseMedia
from distributed_avel.timeline import Timeline

# Time stamps of real tracks jitter by a few samples; a larger difference is a gap.
_GAP_S = 0.05

# Half a quantization step of 16-bit audio: a track below it is digital silence.
_SILENCE = 2.0**-16

_SOXR_QUALITY = "HQ"  # what librosa calls soxr_hq

_OVERLAP_S = 30.0
"""Largest backward jump of the time stamps of a file that is decoded in pieces, in seconds. As much
of the waveform is held back, because a later block overwrites the overlap."""


def read_audio(
    media: bytes | MediaPiece, timeline: Timeline, sample_rate_hz: int
) -> NDArray[np.float32]:
    """Decode the waveform of the timeline, mono.

    If up to half a segment is missing from the track, it is filled with silence. A track that is
    digital silence throughout is refused: its audio-visual labels must be wrong, and it would train
    the network to ignore audio. A video that is silent in parts is accepted.

    Args:
        media: Content of the file, or a piece of it.
        timeline: Segments of the file or of the piece.
        sample_rate_hz: Sample rate of the result.

    Returns:
        Shape (N,), float32 in [-1, 1], with N = `duration_s * sample_rate_hz`.

    Raises:
        MediaError: The track is missing, damaged, too short, or silent; the message says which.
    """
    if isinstance(media, MediaPiece):
        return media.decode(
            ("audio", sample_rate_hz), lambda whole: _read_pieces(whole, sample_rate_hz)
        )
    with open_media(media) as opened:
        wave_N, rate_hz = _decode(opened, timeline)
    _refuse_infinite(wave_N)
    _refuse_silence(_peak(wave_N), timeline)
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


def _read_pieces(
    whole: PiecewiseMedia, sample_rate_hz: int
) -> Generator[NDArray[np.float32], None, None]:
    """Yield the waveform of each piece of a file; together, they are that of `read_audio`."""
    timeline, pieces = whole.timeline, iter(whole.pieces)
    segments = next(pieces)
    wave_N, start = np.zeros(0, dtype=np.float32), 0  # from sample `start` of the file on
    change_rate: soxr.ResampleStream | None = None
    peak = 0.0
    with open_media(whole.media) as opened:
        for block_N, rate_hz in _decode_blocks(opened, whole):
            _refuse_infinite(block_N)
            peak = max(peak, _peak(block_N))
            if rate_hz != sample_rate_hz:
                change_rate = change_rate or soxr.ResampleStream(
                    rate_hz, sample_rate_hz, 1, "float32", _SOXR_QUALITY
                )
                block_N = change_rate.resample_chunk(block_N)
            wave_N = np.concatenate([wave_N, block_N])
            while segments.stop < timeline.num_segments:
                end = timeline.audio_span(segments.stop, sample_rate_hz).stop
                if start + len(wave_N) < end:  # one segment more than the piece
                    break
                yield _wave_of(segments, timeline, sample_rate_hz, wave_N, start)
                segments = next(pieces)
                first = timeline.audio_span(segments.start, sample_rate_hz).start
                wave_N, start = wave_N[first - start :], first
        if not whole.start_s:  # a shifted timeline may begin after the only sound
            _refuse_silence(peak, timeline)
        if change_rate is not None:
            rest_N = change_rate.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
            wave_N = np.concatenate([wave_N, rest_N])
        end = round(timeline.duration_s * sample_rate_hz)
        wave_N = librosa.util.fix_length(wave_N, size=end - start)
        for last in (segments, *pieces):  # more than one if the file is short
            yield _wave_of(last, timeline, sample_rate_hz, wave_N, start)


def _wave_of(
    segments: range,
    timeline: Timeline,
    sample_rate_hz: int,
    wave_N: NDArray[np.float32],
    start: int,
) -> NDArray[np.float32]:
    """Cut the waveform of a piece out of that of the file, which begins at sample `start`.

    Segment t of the piece begins at the sample where it begins in the file, also if segments have
    no integer number of samples, and the piece would be rounded in another way.
    """
    piece = Timeline(num_segments=len(segments), segment_s=timeline.segment_s)
    cut_N = np.zeros(round(piece.duration_s * sample_rate_hz), dtype=np.float32)
    for t, segment in enumerate(segments):
        span = piece.audio_span(t, sample_rate_hz)
        first = timeline.audio_span(segment, sample_rate_hz).start - start
        samples_N = wave_N[first : first + span.stop - span.start]
        cut_N[span.start : span.start + len(samples_N)] = samples_N
    return np.clip(cut_N, -1.0, 1.0)


def _refuse_infinite(wave_N: NDArray[np.float32]) -> None:
    if not np.isfinite(wave_N).all():
        raise MediaError("damaged: the audio contains values that are not finite")


def _peak(wave_N: NDArray[np.float32]) -> float:
    return float(np.abs(wave_N).max(initial=0.0))


def _refuse_silence(peak: float, timeline: Timeline) -> None:
    if peak < _SILENCE:
        raise MediaError(
            f"silent: the audio stream is digital silence in the first {timeline.duration_s:g} s; "
            "an event must be both visible and audible"
        )


def _decode(media: Media, timeline: Timeline) -> tuple[NDArray[np.float32], int]:
    """Decode `duration_s` of the audio track; return the waveform and its sample rate."""
    wave_N, present_N = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=bool)
    rate_hz = 0
    for position, samples_N, block_rate_hz in _placed_blocks(media):
        if not rate_hz:
            rate_hz = block_rate_hz
            wave_N = np.zeros(round(timeline.duration_s * rate_hz), dtype=np.float32)
            present_N = np.zeros(len(wave_N), dtype=bool)
        first, last = max(position, 0), min(position + len(samples_N), len(wave_N))
        if first < last:
            wave_N[first:last] = samples_N[first - position : last - position]
            present_N[first:last] = True
        if position + len(samples_N) >= len(wave_N):
            break
    coverage = _Coverage(rate_hz)
    coverage.add(present_N)
    coverage.refuse_missing(timeline, MAX_MISSING_SEGMENTS * timeline.segment_s)
    return wave_N, rate_hz


def _decode_blocks(
    media: Media, whole: PiecewiseMedia
) -> Generator[tuple[NDArray[np.float32], int], None, None]:
    """Yield the waveform of `_decode` in consecutive blocks, each with its sample rate.

    Args:
        media: The open file.
        whole: Its timeline.

    Raises:
        MediaError: The track is damaged, or lacks too much of the timeline. That is known only
            after the last block.
    """
    timeline, buffer = whole.timeline, _Buffer(0, 0)
    for position, samples_N, rate_hz in _placed_blocks(media):
        if not buffer.rate_hz:
            buffer = _Buffer(rate_hz, round(timeline.duration_s * rate_hz))
        position -= round(whole.start_s * rate_hz)
        first, last = max(position, 0), min(position + len(samples_N), buffer.total)
        if first < last:
            yield from ((block_N, rate_hz) for block_N in buffer.flush(first))
            buffer.put(first, samples_N[first - position : last - position])
        if position + len(samples_N) >= buffer.total:
            break
    yield from ((block_N, buffer.rate_hz) for block_N in buffer.flush(None))
    buffer.coverage.refuse_missing(timeline, whole.max_missing_s)


class _Buffer:
    """The last seconds of a waveform that is being decoded; the rest has been flushed.

    Args:
        rate_hz: Sample rate.
        total: Samples of the whole waveform.
    """

    def __init__(self, rate_hz: int, total: int) -> None:
        self.rate_hz, self.total = rate_hz, total
        self.coverage = _Coverage(rate_hz)
        self._size = round(_OVERLAP_S * rate_hz)
        self._start = 0
        self._wave_N = np.zeros(2 * self._size, dtype=np.float32)
        self._present_N = np.zeros(2 * self._size, dtype=bool)

    def put(self, first: int, samples_N: NDArray[np.float32]) -> None:
        """Write samples at a position of the waveform.

        Raises:
            MediaError: The position has been flushed.
        """
        at = first - self._start
        if at < 0:
            raise MediaError(
                f"time stamps of the audio jump back to {first / self.rate_hz:.2f} s, as in a file "
                f"that was joined from several; convert it: {CONVERT}"
            )
        end = at + len(samples_N)
        if end > len(self._wave_N):  # one block is longer than the buffer
            more = end - len(self._wave_N)
            self._wave_N = np.pad(self._wave_N, (0, more))
            self._present_N = np.pad(self._present_N, (0, more))
        self._wave_N[at:end] = samples_N
        self._present_N[at:end] = True

    def flush(self, position: int | None) -> Iterator[NDArray[np.float32]]:
        """Yield all but the last seconds before a position; all of the waveform for None."""
        is_end = position is None
        end = self.total if position is None else position - self._size
        while self._start < end if is_end else self._start + self._size <= end:
            count = min(self._size, end - self._start)
            yield self._wave_N[:count].copy()
            self.coverage.add(self._present_N[:count])
            for array_N in (self._wave_N, self._present_N):
                array_N[:-count] = array_N[count:]
                array_N[-count:] = 0
            self._start += count


class _Coverage:
    """Part of a waveform that the blocks of a track cover.

    Args:
        rate_hz: Sample rate; 0 if there is no block.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._num_samples = self._num_present = 0
        self._open: int | None = None  # start of the gap that the samples so far end with
        self._longest = (0, 0)

    def add(self, present_N: NDArray[np.bool_]) -> None:
        """Count the next samples; True is covered."""
        inside = np.concatenate([[self._open is None], present_N])
        for at in (np.flatnonzero(np.diff(inside)) + self._num_samples).tolist():
            if self._open is None:
                self._open = at
            else:
                self._close(at)
        self._num_samples += len(present_N)
        self._num_present += int(present_N.sum())

    def refuse_missing(self, timeline: Timeline, max_missing_s: float) -> None:
        """Refuse a track that lacks more than `max_missing_s` of the timeline.

        Raises:
            MediaError: Too much is missing; the message names the longest gap, in seconds.
        """
        present_s = self._num_present / self._rate_hz if self._rate_hz else 0.0
        sample_s = 1 / max(self._rate_hz, 1)  # positions are rounded to samples
        if timeline.duration_s - present_s <= max_missing_s + sample_s:
            return
        if self._open is not None:
            self._close(self._num_samples)
        start_s, end_s = (at / max(self._rate_hz, 1) for at in self._longest)
        if not self._num_samples:
            end_s = timeline.duration_s
        raise MediaError(
            f"too short: {present_s:.2f} s of audio, but {timeline.duration_s:g} s are needed; "
            f"there is none from {start_s:.2f} s to {end_s:.2f} s"
        )

    def _close(self, end: int) -> None:
        assert self._open is not None
        if end - self._open > self._longest[1] - self._longest[0]:
            self._longest = (self._open, end)
        self._open = None


def _placed_blocks(media: Media) -> Iterator[tuple[int, NDArray[np.float32], int]]:
    """Yield blocks of audio with the position of their first sample, and their sample rate (Hz).

    Blocks are concatenated unless the time stamp of a block differs by more than `_GAP_S` from the
    end of the previous block: a later start leaves silence, an earlier one overwrites the overlap.
    """
    rate_hz, position = 0, 0
    for start_s, samples_N, block_rate_hz in _blocks(media):
        if not rate_hz:
            rate_hz = block_rate_hz
            position = round((start_s or 0.0) * rate_hz)
        elif rate_hz != block_rate_hz:
            raise MediaError(
                f"the sample rate changes from {rate_hz} to {block_rate_hz} Hz; "
                f"convert the file: {CONVERT}"
            )
        if start_s is not None and abs(start_s - position / rate_hz) > _GAP_S:
            position = round(start_s * rate_hz)
        yield position, samples_N, rate_hz
        position += len(samples_N)


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
