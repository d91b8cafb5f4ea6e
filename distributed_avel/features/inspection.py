"""Inspect the decoded input of an extractor for one media file (`avel inspect`).

Shape suffixes used in this file:
    T = segments    S = sampled frames per segment    H, W = height and width of a frame
    3 = red, green, blue    N = samples of the waveform    F = spectrogram frames    M = mel bands
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distributed_avel.features.base import Extractor
from distributed_avel.media.audio import LogMel, read_audio, segments_of_audio
from distributed_avel.media.container import open_media
from distributed_avel.media.decord_reader import why_not
from distributed_avel.media.facts import UPRIGHT, PictureFacts, picture_facts
from distributed_avel.media.video import sample_frames, sample_times
from distributed_avel.timeline import Timeline

_SHEET_COLUMNS = 10
_TILE = 112
_MEL_HEIGHT = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """Decoded frames and audio of one file, and how they were obtained.

    Args:
        timeline: Segments.
        frames_TSHW3: Sampled frames of each segment, uint8.
        frame_times_TS: Presentation time of each sampled frame, in seconds.
        waveform_TN: Audio of each segment, mono, float32 in [-1, 1].
        sample_rate_hz: Sample rate of the audio.
        reader: Name of the frame reader.
        container: FFmpeg's name of the format.
        codecs: Names of the video and the audio codec.
        notes: Unusual properties of the file, one sentence each.
    """

    timeline: Timeline
    frames_TSHW3: NDArray[np.uint8]
    frame_times_TS: NDArray[np.float64]
    waveform_TN: NDArray[np.float32]
    sample_rate_hz: int
    reader: str
    container: str
    codecs: tuple[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the times of all samples and the properties of the file as plain values."""
        segments = []
        for segment in range(self.timeline.num_segments):
            start_s, end_s = self.timeline.bounds_s(segment)
            times_S = self.frame_times_TS[segment]
            segments.append(
                {
                    "segment": segment,
                    "frame_times_s": [round(float(time_s), 6) for time_s in times_S],
                    "audio_start_s": round(start_s, 6),
                    "audio_end_s": round(end_s, 6),
                }
            )
        return {
            "reader": self.reader,
            "container": self.container,
            "video_codec": self.codecs[0],
            "audio_codec": self.codecs[1],
            "sample_rate_hz": self.sample_rate_hz,
            "notes": list(self.notes),
            "segments": segments,
        }

    def to_text(self) -> str:
        """Format the content of `to_json` for a terminal, one line per segment."""
        lines = [
            f"{self.container}: {self.codecs[0]} and {self.codecs[1]}, frames read by "
            f"{self.reader}",
            *(f"note: {note}" for note in self.notes),
            f"{'segment':>7}  {'audio (s)':>15}  frame times (s)",
        ]
        for row in self.to_json()["segments"]:
            times = " ".join(f"{time_s:.3f}" for time_s in dict.fromkeys(row["frame_times_s"]))
            audio = f"{row['audio_start_s']:.2f}-{row['audio_end_s']:.2f}"
            lines.append(f"{row['segment']:>7}  {audio:>15}  {times}")
        return "\n".join(lines)

    def samples(self) -> bytes:
        """Return the frames and the audio as an npz file: exactly the input of the extractor."""
        file = io.BytesIO()
        np.savez(
            file,
            frames_TSHW3=self.frames_TSHW3,
            frame_times_TS=self.frame_times_TS,
            waveform_TN=self.waveform_TN,
            sample_rate_hz=np.array(self.sample_rate_hz),
        )
        return file.getvalue()

    def sheet(self) -> bytes:
        """Return a contact sheet as PNG: the middle frame of each segment above its log-mel."""
        log_mel = LogMel(sample_rate_hz=self.sample_rate_hz)(self.waveform_TN)
        low, high = float(log_mel.min()), float(log_mel.max())
        grey_TFM = 255 * (log_mel - low) / max(high - low, 1e-6)
        columns = min(_SHEET_COLUMNS, self.timeline.num_segments)
        rows = -(-self.timeline.num_segments // columns)
        sheet = Image.new("RGB", (columns * _TILE, rows * (_TILE + _MEL_HEIGHT)))
        for segment in range(self.timeline.num_segments):
            row, column = divmod(segment, columns)
            at = column * _TILE, row * (_TILE + _MEL_HEIGHT)
            frames_SHW3 = self.frames_TSHW3[segment]
            frame = Image.fromarray(frames_SHW3[len(frames_SHW3) // 2])
            frame.thumbnail((_TILE, _TILE))
            sheet.paste(frame, at)
            mel = Image.fromarray(grey_TFM[segment].T[::-1].astype(np.uint8))
            sheet.paste(mel.resize((_TILE, _MEL_HEIGHT)), (at[0], at[1] + _TILE))
        file = io.BytesIO()
        sheet.save(file, "PNG")
        return file.getvalue()


def inspect_media(media: bytes, extractor: Extractor) -> Inspection:
    """Decode a media file in the same way as `extractor`.

    Raises:
        MediaError: The extractor would refuse the file; the message gives the reason.
    """
    timeline, config = extractor.timeline, extractor.config
    with open_media(media) as opened:
        facts = picture_facts(opened, timeline.duration_s)
        codecs = (facts.codec, opened.audio.codec_context.name)
        notes = [*_notes_on_pictures(facts, timeline)]
        if abs(opened.start_s) > 0.001:
            notes.append(f"the container starts at {opened.start_s:.3f} s, which is time 0 here")
        tracks = opened.container.streams.audio
        if len(tracks) > 1:
            number = tracks.index(opened.audio) + 1
            notes.append(f"{len(tracks)} audio tracks; number {number} is used")
        if len(opened.container.streams.video) > facts.num_tracks:
            notes.append("a cover picture is ignored")
    wave_N = read_audio(media, timeline, extractor.sample_rate_hz)
    sampled = sample_frames(
        media,
        timeline,
        extractor.frames_per_segment,
        extractor.picture_size,
        sampling=config.sampling,
        reader=config.reader,
    )
    if sampled.reader != "decord" and config.reader == "auto":
        _, *size_hw, _ = sampled.frames_FHW3.shape
        reason = why_not(facts, (size_hw[0], size_hw[1]))
        notes.append(f"decord is not used: {reason or 'it counts a different number of frames'}")
    frame_times_TS = sampled.times_F[sampled.index_TS]
    if config.sampling == "published":
        offset_TS = frame_times_TS - sample_times(timeline, extractor.frames_per_segment)
        notes.append(
            f"sampled by frame count: frames are up to {np.abs(offset_TS).max():.2f} s out of sync "
            "with the audio"
        )
    return Inspection(
        timeline=timeline,
        frames_TSHW3=sampled.frames_FHW3[sampled.index_TS],
        frame_times_TS=frame_times_TS,
        waveform_TN=segments_of_audio(wave_N, timeline, extractor.sample_rate_hz),
        sample_rate_hz=extractor.sample_rate_hz,
        reader=sampled.reader,
        container=facts.container,
        codecs=codecs,
        notes=tuple(notes),
    )


def _notes_on_pictures(facts: PictureFacts, timeline: Timeline) -> list[str]:
    times_s = np.array(facts.times_s)
    gaps_s = np.diff(times_s)
    longest = int(gaps_s.argmax()) if len(gaps_s) else 0
    is_uneven = len(gaps_s) > 0 and gaps_s.max() > 1.5 * np.median(gaps_s)
    is_frozen = is_uneven and gaps_s.max() > timeline.segment_s / 2
    candidates = (
        (facts.num_hidden > 0, f"an edit list hides {facts.num_hidden} frames"),
        (facts.num_without_time > 0, f"{facts.num_without_time} packets have no time"),
        (len(times_s) > 0 and times_s[0] > 0.001, f"frames start at {_first(times_s):.3f} s"),
        (facts.orientation != UPRIGHT, "frames are rotated or mirrored as the file specifies"),
        (facts.interlaced, "frames are interlaced; both fields are kept"),
        (is_uneven, "the frame rate varies"),
        (
            is_frozen,
            f"one frame is shown from {times_s[longest]:.2f} s to {times_s[longest + 1]:.2f} s"
            if is_frozen
            else "",
        ),
        (
            facts.pixel_format not in ("yuv420p", "yuvj420p"),
            f"the pixel format is {facts.pixel_format}",
        ),
        (
            facts.num_tracks > 1,
            f"{facts.num_tracks} video tracks; the default track, or else the first, is used",
        ),
        (
            facts.end_s > timeline.duration_s + timeline.segment_s,
            f"only the first {timeline.duration_s:g} s are used",
        ),
    )
    return [note for applies, note in candidates if applies]


def _first(times_s: NDArray[np.float64]) -> float:
    return float(times_s[0]) if len(times_s) else 0.0
