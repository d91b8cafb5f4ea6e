"""What is wrong with a data set, collected while it is read.

A reader goes on after a line that it cannot use, so that a user hears of all of them at once.
What makes a data set unusable is an *error*; what its authors published all the same, such as
an event that ends where it begins, is an *oddity*: it stops nothing, and `jobs/check_data.py`
reports it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distributed_avel.errors import DatasetError

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something that stops nothing; `where` names a file and line, or a video."""

    kind: str
    where: str
    message: str


class Problems:
    """The errors and oddities of one data set, in the order in which they were met."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.oddities: list[Oddity] = []

    def error(self, message: str) -> None:
        """Note what makes the data set unusable; the message says where, and what to do."""
        if message not in self.errors:
            self.errors.append(message)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Note a `DatasetError` and go on behind the block."""
        try:
            yield
        except DatasetError as error:
            self.error(str(error))

    def oddity(self, kind: str, where: str, message: str) -> None:
        """Note what the pipeline can live with."""
        self.oddities.append(Oddity(kind, where, message))

    def refuse(self, name: str) -> None:
        """Raise if there were errors.

        Args:
            name: The data set.

        Raises:
            DatasetError: The message has all of them, up to 20.
        """
        if len(self.errors) > 1:
            lines = [f"{name}: {len(self.errors)} problem(s)", *self.errors[:_SHOWN]]
            if len(self.errors) > _SHOWN:
                lines.append(f"... and {len(self.errors) - _SHOWN} more")
            raise DatasetError("\n  ".join(lines))
        if self.errors:
            raise DatasetError(self.errors[0])
