"""Text files that list images, one a line."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from fastfcn_pl.core.types import UserError

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16's, which it starts with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_MAX_BYTES = 1 << 30
"""A list of 10 million images is smaller."""


def read_lines(path: Path, remedy: str) -> list[str]:
    """Return the stripped lines of a list; raises UserError, with the `remedy`, for a file that is not UTF-8 text.

    Only CR and LF end a line. `str.splitlines` would also split at other characters, which file names may contain.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("it is not a file")
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("it is too large")
        text = _decode(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read as a list ({error.strerror}): {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read as a list ({error}): {remedy}") from error
    return [line.strip(" \t") for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]


def read_names(path: Path) -> list[str]:
    """Return the words of a list, such as the image names of a split; raises UserError for a file that is not text."""
    return [name for line in read_lines(path, "restore it") for name in line.split()]


def _decode(content: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"it is stored as {encoding}, not as UTF-8: save it as UTF-8")
    if b"\0" in content:
        wide = content.count(b"\0") * 3 > len(content)
        raise ValueError("it looks like UTF-16: save it as UTF-8" if wide else "it contains zero bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8, but perhaps Latin-1 or Windows-1252: save it as UTF-8") from error
