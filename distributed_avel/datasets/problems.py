"""Collect the problems of a data set while it is read.

A reader continues after an unusable line, so that all problems are reported at once. Problems that
would make the results wrong are *errors*: the pipeline refuses the data set. Problems that
published data sets have, such as an event that ends at its start, are *oddities*: `avel check`
reports them, and the pipeline accepts the data set.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distributed_avel.errors import DatasetError

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Oddity:
    """A problem that the pipeline accepts; `where` is a file and line, or a video."""

    kind: str
    where: str
    message: str


class Problems:
    """Errors and oddities of one data set, in the order in which they were found.

    `places` maps a video id to the file and line that describe the video.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.oddities: list[Oddity] = []
        self.places: dict[str, str] = {}

    def error(self, message: str) -> None:
        """Add an error; the message names file, line and remedy."""
        if message not in self.errors:
            self.errors.append(message)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Context manager: add a `DatasetError` of the block as an error and continue after it."""
        try:
            yield
        except DatasetError as error:
            self.error(str(error))

    def oddity(self, kind: str, where: str, message: str) -> None:
        """Add an oddity.

        Args:
            kind: A key of `findings.MEANING`.
            where: File and line, or video.
            message: Description.
        """
        self.oddities.append(Oddity(kind, where, message))

    def refuse(self, name: str) -> None:
        """Raise if there are errors.

        Args:
            name: Name of the data set.

        Raises:
            DatasetError: There are errors; the message lists up to 20.
        """
        if len(self.errors) > 1:
            lines = [f"{name}: {len(self.errors)} problem(s)", *self.errors[:_SHOWN]]
            if len(self.errors) > _SHOWN:
                lines.append(f"... and {len(self.errors) - _SHOWN} more")
            raise DatasetError("\n  ".join(lines))
        if self.errors:
            raise DatasetError(self.errors[0])
