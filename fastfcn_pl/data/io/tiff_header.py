"""Size of a TIFF from its header, which may claim more pixels than fit into memory."""

from __future__ import annotations

import struct
from mmap import mmap

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF in both byte orders."""
_WIDTH, _HEIGHT = 256, 257
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
"""Codes in `struct` of the types of a tag."""


def tiff_size(content: bytes | mmap) -> tuple[int, int]:
    """Return the width and height of the first page; a side that is missing is 0.

    If a tag is repeated, the largest value counts, since readers differ in which one they take. Raises ValueError if
    the header of a page is cut off, which decoders take for the end of the pages.
    """
    order, big = "<" if content[:2] == b"II" else ">", b"+" in content[2:4]
    start_at, pointer, number = (8, "Q", "Q") if big else (4, "I", "H")
    length, value = (20, 12) if big else (12, 8)  # of a tag, and the place of its value in it
    sides, seen = {_WIDTH: 0, _HEIGHT: 0}, set[int]()
    try:
        (page,) = struct.unpack_from(order + pointer, content, start_at)
        while page and page not in seen:
            (count,) = struct.unpack_from(order + number, content, page)
            first = page + struct.calcsize(number)
            end = first + length * count
            for at in range(first, end, length) if not seen else ():
                tag, kind = struct.unpack_from(f"{order}HH", content, at)
                if tag in sides and kind in _INTEGERS:
                    (side,) = struct.unpack_from(order + _INTEGERS[kind], content, at + value)
                    sides[tag] = max(sides[tag], side)
            seen.add(page)
            (page,) = struct.unpack_from(order + pointer, content, end)
    except (struct.error, OverflowError) as error:
        raise ValueError("the file is cut off") from error
    return sides[_WIDTH], sides[_HEIGHT]
