"""Text files that list images, a line each, in whatever encoding they come."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from fastfcn_pl.core.types import UserError

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16's, which it starts with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LARGEST = 1 << 30
"""Bytes: a list of 10 million images is smaller."""


def lines(path: Path, remedy: str) -> list[str]:
    """Return the lines of a list without the spaces around them; raises UserError for a file that is no text in UTF-8.

    The names in a line may hold any character but those that end a line, so that `str.splitlines`, which takes more of
    them for an end, is not used.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("it is not a file")
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large for one")
        text = _decoded(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read as a list ({error.strerror}): {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read as a list ({error}): {remedy}") from error
    return [line.strip(" \t") for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]


def names(path: Path) -> list[str]:
    """Return the words of a list, such as the names of a split; raises UserError for a file that is no text."""
    return [name for line in lines(path, "restore it") for name in line.split()]


def _decoded(content: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"it is stored as {encoding}, not as UTF-8: save it as UTF-8")
    if b"\0" in content:
        wide = content.count(b"\0") * 3 > len(content)
        raise ValueError("it looks like UTF-16: save it as UTF-8" if wide else "it holds zero bytes, as no text does")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8, but perhaps Latin-1 or Windows-1252: save it as UTF-8") from error
