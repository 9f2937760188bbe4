"""COCO's run-length encoding of masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def decode(size: tuple[int, int], counts: str | Sequence[int]) -> np.ndarray:
    """Return the mask `(H, W)`, bool, of run lengths in column-major order that start with a run of zeros.

    `counts` are the lengths, or their text as written by `maskApi.c`. Raises ValueError if they do not fit `size`.
    """
    lengths = _lengths(counts) if isinstance(counts, str) else list(counts)
    if sum(lengths) != size[0] * size[1] or min(lengths) < 0:
        raise ValueError(f"runs of {sum(lengths)} pixels for {size[1]}x{size[0]}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size, order="F")


def _lengths(text: str) -> list[int]:
    """Decode numbers of 5 bits a character, lowest first; from the fourth on, differences to the one two before."""
    lengths: list[int] = []
    number = shift = 0
    for byte in text.encode():
        bits = byte - 48
        number |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:  # the number continues
            continue
        if bits & 0x10:  # it is negative
            number -= 1 << shift
        lengths.append(number + lengths[-2] if len(lengths) > 2 else number)
        number = shift = 0
    return lengths


def encode(mask: np.ndarray) -> str:
    """Return the run lengths of a mask `(H, W)`, bool, as text for `decode`."""
    pixels = mask.ravel(order="F")
    ends = np.append(np.flatnonzero(np.diff(pixels)) + 1, pixels.size)
    lengths = np.diff(ends, prepend=0).tolist()
    return _text([0, *lengths] if pixels[0] else lengths)


def _text(lengths: list[int]) -> str:
    """Encode numbers as text, the inverse of `_lengths`."""
    characters = []
    for i, length in enumerate(lengths):
        number = length - lengths[i - 2] if i > 2 else length
        while True:
            bits, number = number & 0x1F, number >> 5
            more = number != (-1 if bits & 0x10 else 0)
            characters.append(chr(48 + bits + (0x20 if more else 0)))
            if not more:
                break
    return "".join(characters)
