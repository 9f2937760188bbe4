"""Fast reading of 8-bit single-channel PNG label maps, with the extra `fast`."""

from __future__ import annotations

import numpy as np

try:
    from imagecodecs import deflate_decode, png_decode
except ImportError:
    deflate_decode = png_decode = None

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _PALETTE = b"\x08\x00", b"\x08\x03"
"""Bit depth and colour type in the header."""
_UNSUPPORTED = (b"tRNS", b"eXIf", b"exif", b"adobe.xmp")
"""Marks of a PNG with a transparent colour or an orientation, which are left to Pillow."""


def decode_ids(content: bytes) -> np.ndarray | None:
    """Return the gray levels or palette indices `(H, W)` in the bytes of a PNG.

    Returns None for any other or damaged file, and without the extra `fast`; Pillow should then read the file.
    """
    kind = content[24:26] if content.startswith(_SIGNATURE) else b""
    if png_decode is None or kind not in (_GRAY, _PALETTE) or any(word in content for word in _UNSUPPORTED):
        return None
    try:
        return png_decode(content) if kind == _GRAY else _decode_unfiltered(content)
    except Exception:  # decoders raise anything for a damaged file
        return None


def _decode_unfiltered(content: bytes) -> np.ndarray | None:
    """Return the pixels of a PNG whose rows have no filter, as is common with palettes; None for any other.

    Such rows only need to be decompressed, which is much faster. The checksum of the compression finds damage.
    """
    width, height, interlaced = int.from_bytes(content[16:20]), int.from_bytes(content[20:24]), content[28]
    rows = np.empty((height, 1 + width), np.uint8)
    data = deflate_decode(_compressed_data(content), out=rows.reshape(-1))
    return None if interlaced or len(data) < rows.size or rows[:, 0].any() else rows[:, 1:]


def _compressed_data(content: bytes) -> bytes:
    """Return the joined IDAT data of a PNG; its chunks are length, type, data and checksum."""
    start, parts = len(_SIGNATURE), []
    while (kind := content[start + 4 : start + 8]) != b"IEND":
        length = int.from_bytes(content[start : start + 4])
        if not kind:
            raise ValueError("it ends before its last chunk")
        if kind == b"IDAT":
            parts.append(content[start + 8 : start + 8 + length])
        start += 12 + length
    return b"".join(parts)
