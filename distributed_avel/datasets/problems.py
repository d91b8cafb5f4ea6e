"""Collect the problems of a data set while it is read.

A reader goes on after a line that it cannot use, so that a user hears of all of them at once.
What makes the results wrong is an *error*: the pipeline refuses the data set. What its authors
may have published all the same, such as an event that ends where it begins, is an *oddity*:
`avel check` reports it, and the pipeline goes on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distributed_avel.errors import DatasetError

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something that the pipeline accepts; `where` names a file and line, or a video."""

    kind: str
    where: str
    message: str


class Problems:
    """The errors and oddities of one data set, in the order in which they were found.

    `places` leads from a video id to the file and line that describe the video.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.oddities: list[Oddity] = []
        self.places: dict[str, str] = {}

    def error(self, message: str) -> None:
        """Note a reason to refuse the data set; the message has file, line and remedy."""
        if message not in self.errors:
            self.errors.append(message)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Note a `DatasetError` and go on after the block."""
        try:
            yield
        except DatasetError as error:
            self.error(str(error))

    def oddity(self, kind: str, where: str, message: str) -> None:
        """Note something that the pipeline accepts.

        Args:
            kind: A key of `checks.MEANING`.
        """
        self.oddities.append(Oddity(kind, where, message))

    def refuse(self, name: str) -> None:
        """Raise if there are errors.

        Args:
            name: Name of the data set.

        Raises:
            DatasetError: The message has all errors, up to 20.
        """
        if len(self.errors) > 1:
            lines = [f"{name}: {len(self.errors)} problem(s)", *self.errors[:_SHOWN]]
            if len(self.errors) > _SHOWN:
                lines.append(f"... and {len(self.errors) - _SHOWN} more")
            raise DatasetError("\n  ".join(lines))
        if self.errors:
            raise DatasetError(self.errors[0])
