"""Read annotation files as text; errors say how to convert files that are not UTF-8."""

import io
import re

from distributed_avel.errors import DatasetError
from distributed_avel.storage import Location

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_text(file: Location) -> str:
    """Return the content of a UTF-8 file, without a byte order mark.

    Raises:
        DatasetError: The file has another encoding; the message names file, line and remedy.
    """
    content = file.read_bytes()
    if content.startswith(_UTF16_MARKS) or b"\0" in content:
        raise DatasetError(
            f"{file}: not UTF-8: this looks like UTF-16, such as Excel's 'Unicode Text'; save it "
            f"as UTF-8, or convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{file}:{line}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8, "
            f"or convert it, from Windows for example: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
        ) from None


def read_lines(file: Location) -> list[str]:
    r"""Return the lines of a UTF-8 file, without the line ends \n, \r\n or \r.

    `str.splitlines` would also split at characters that may be part of a name, such as U+2028,
    and all later line numbers would be wrong.

    Raises:
        DatasetError: As for `read_text`.
    """
    return [line.rstrip("\n") for line in io.StringIO(read_text(file), newline=None)]


def parse_seconds(text: str) -> float:
    """Parse a time in seconds.

    `float` also accepts `1_0` for 10 and `nan`, which are mistakes in a table.

    Raises:
        ValueError: The text is not a decimal number.
    """
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(f"not a decimal number: {text!r}")
    return float(text)
