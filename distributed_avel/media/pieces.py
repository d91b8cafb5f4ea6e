"""A media file that is decoded in pieces of consecutive segments, in constant memory.

`read_audio` and `sample_frames` take a piece in place of the content of a file. Each decodes the
file once, in order, and stops at the end of the piece until the next one is asked for. The samples
and frames of all pieces together are exactly those of the whole file.
"""

from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from distributed_avel.media.container import MAX_MISSING_SEGMENTS
from distributed_avel.media.files import MediaFile
from distributed_avel.timeline import Timeline

T = TypeVar("T")

_SHIFTED_MARGIN = 0.1
"""Tolerance beyond `MAX_MISSING_SEGMENTS` on a shifted timeline, in segments. A file is often a
multiple of the shift long; then exactly half a segment is missing by the header, and the
frames and samples may end slightly earlier."""

Decode = Callable[["PiecewiseMedia"], Generator[T, None, None]]
"""Yields what was decoded of each piece of a file, in order."""


def cut_into_pieces(num_segments: int, size: int) -> list[range]:
    """Cut the segments of a video into pieces of `size` segments.

    The last piece has up to `2 * size - 1` segments, so that no piece is very short.
    """
    starts = range(0, max(1, num_segments - size + 1), size)
    ends = [*starts[1:], num_segments]
    return [range(start, end) for start, end in zip(starts, ends, strict=True)]


@dataclass(frozen=True, slots=True)
class PiecewiseMedia:
    """A media file, and the pieces in which it is decoded.

    Args:
        media: The file.
        timeline: Segments of the whole video.
        pieces: Segments of each piece, in order; together all of the timeline.
        start_s: Start of the timeline on the presentation timeline of the file, in seconds.
    """

    media: MediaFile
    timeline: Timeline
    pieces: Sequence[range]
    start_s: float = 0.0
    _decoders: dict[Hashable, "_Position"] = field(default_factory=dict)

    @property
    def max_missing_s(self) -> float:
        """Longest part that a track may lack at the end of the timeline, in seconds."""
        margin = _SHIFTED_MARGIN if self.start_s else 0.0
        return (MAX_MISSING_SEGMENTS + margin) * self.timeline.segment_s

    def __iter__(self) -> "Iterator[MediaPiece]":
        """Yield the pieces; each must be decoded before the next."""
        for number in range(len(self.pieces)):
            yield MediaPiece(self, number)

    def close(self) -> None:
        """Close the decoders."""
        for position in self._decoders.values():
            position.decoder.close()
        self._decoders.clear()


@dataclass(frozen=True, slots=True)
class MediaPiece:
    """Consecutive segments of a media file.

    Args:
        whole: The file.
        number: Index of the piece.
    """

    whole: PiecewiseMedia
    number: int

    @property
    def timeline(self) -> Timeline:
        """Segments of the piece alone."""
        return Timeline(
            num_segments=len(self.whole.pieces[self.number]),
            segment_s=self.whole.timeline.segment_s,
        )

    def decode(self, key: Hashable, decode: Decode[T]) -> T:
        """Decode this piece.

        Args:
            key: Identifies a decoder and its settings; each is started once per file.
            decode: Starts the decoder.

        Raises:
            MediaError: The file cannot be used.
        """
        decoders = self.whole._decoders
        if key not in decoders:
            decoders[key] = _Position(decode(self.whole))
        position = decoders[key]
        if position.next_piece > self.number:
            raise ValueError(f"piece {self.number} has been decoded before, with {key}")
        for _ in range(position.next_piece, self.number):  # pieces that nobody asked for
            next(position.decoder)
        position.next_piece = self.number + 1
        return next(position.decoder)


@dataclass(slots=True)
class _Position:
    """A running decoder, and the piece that it decodes next."""

    decoder: Generator[Any, None, None]
    next_piece: int = 0
