"""Reading of images with any number of bands, of any depth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image

from fastfcn_pl.core.types import Bands, UserError
from fastfcn_pl.data.io.image_files import (
    FileSource,
    errors_named,
    file_content,
    image_size,
    open_image,
    require_file,
    size_text,
)
from fastfcn_pl.data.io.pixel_limit import is_above_limit, too_large
from fastfcn_pl.data.io.tiff_header import SIGNATURES, tiff_size

try:
    from imagecodecs import png_decode, tiff_decode
except ImportError:
    png_decode = tiff_decode = None

_DEEP_COLOR = (b"\x10\x02", b"\x10\x04", b"\x10\x06")
"""Bit depth and colour type in the header of a PNG with several channels of 16 bits, which Pillow cuts to 8."""


@dataclass(frozen=True)
class BandSource(FileSource):
    """Images with `bands`, the positions that are taken from each file of an image, as float32 in units of the files.

    A pair is an image, its mask, and further files whose bands follow those of the image. Each file has as many bands
    as that of the image `reference`.
    """

    bands: tuple[tuple[int, ...], ...] = ()
    reference: tuple[Path, ...] = ()

    def image(self, index: int) -> np.ndarray:
        """Return the image `(H, W, C)` of a pair."""
        return read_bands(self.images(index), self.bands, self.upright, self.max_pixels, self.reference)

    def images(self, index: int) -> tuple[Path, ...]:
        """Return the files of the image of a pair."""
        image, _, *others = self.pairs[index]
        return image, *others


def read_bands(
    paths: Sequence[Path],
    bands: Sequence[Sequence[int]],
    upright: bool,
    max_pixels: int | None = None,
    reference: Sequence[Path] = (),
) -> np.ndarray:
    """Return the `bands` of each of `paths` as one image `(H, W, C)`, float32.

    Raises UserError if a file lacks a band, has too many pixels or values that are no numbers, has another size than
    the first one, or another number of bands than its counterpart in `reference`.
    """
    if len(paths) != len(bands):
        raise UserError(f"{paths[0]}: data.bands takes bands of {len(bands)} files, and {len(paths)} are given")
    parts: list[np.ndarray] = []
    for position, (path, chosen) in enumerate(zip(paths, bands, strict=True)):
        pixels = _read_all(path, upright, max_pixels)
        if reference and (count := _count_bands(reference[position], upright, max_pixels)) != pixels.shape[2]:
            raise UserError(
                f"{path} has {pixels.shape[2]} bands, but {reference[position]} has {count}: give files of one kind"
            )
        part = select_bands(pixels, chosen, str(path))
        if parts and part.shape[:2] != parts[0].shape[:2]:
            raise UserError(
                f"{path} is {size_text(part)} but {paths[0]} is {size_text(parts[0])}: resample one of them to the "
                "other's size"
            )
        parts.append(part)
    return np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]


def band_pixels(image: object, bands: Bands) -> np.ndarray:
    """Return an image `(H, W, C)`, float32, of a file, of one file for each modality, or of an array or PIL image.

    Of files the `bands` are taken. An array has these bands already, and no others, in its last or its first axis.
    Raises UserError for anything else.
    """
    paths = [image] if isinstance(image, (str, os.PathLike)) else image
    if isinstance(paths, (list, tuple)) and all(isinstance(path, (str, os.PathLike)) for path in paths):
        return read_bands([Path(path) for path in paths], bands.files, upright=True)
    pixels = np.asarray(image) if isinstance(image, Image.Image) else image
    if not isinstance(pixels, np.ndarray):
        raise UserError(f"the image is a {type(image).__name__}: give an array of {bands.count} bands, or files")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or bands.count not in (pixels.shape[2], pixels.shape[0]):
        raise UserError(
            f"the image is of {pixels.dtype} and shape {pixels.shape}, and the network takes {bands.count} bands: give "
            f"an array (H, W, {bands.count}) or ({bands.count}, H, W) in the units of the training data"
        )
    pixels = pixels if pixels.shape[2] == bands.count else np.moveaxis(pixels, 0, 2)
    return select_bands(_numeric(pixels, "the image"), range(bands.count), "the image")


def select_bands(pixels: np.ndarray, chosen: Sequence[int], name: str) -> np.ndarray:
    """Return the `chosen` bands of pixels `(H, W, C)` as float32; raises UserError for values that are no numbers."""
    if max(chosen) >= pixels.shape[2]:
        raise UserError(
            f"{name} has {pixels.shape[2]} bands, so there is no band {max(chosen)} (they count from 0), which "
            f"data.bands={[*chosen]} takes: give images like those of the data set, or other bands to train with"
        )
    with np.errstate(over="ignore"):  # the check below names what becomes infinite
        image = np.ascontiguousarray(pixels[..., list(chosen)], dtype=np.float32)
    finite = np.isfinite(image)
    if not finite.all():
        count = int((~finite.all(2)).sum())
        bands = ", ".join(str(chosen[i]) for i in np.flatnonzero(~finite.all((0, 1))).tolist())
        raise UserError(
            f"{name} has {count} pixels that are NaN, infinite or beyond float32, in band {bands}: fill them with a "
            "number, and give them 255 in the mask if they shall not count"
        )
    return image


def bands_last(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return pixels as `(H, W, C)`: the shorter one of the first and the last axis holds the bands, or none does."""
    pixels = _numeric(pixels[..., None] if pixels.ndim == 2 else pixels, name)
    return np.moveaxis(pixels, 0, 2) if pixels.shape[0] < pixels.shape[2] else pixels


def _numeric(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return `pixels`; raises UserError unless they are real numbers with three axes."""
    if pixels.ndim != 3 or pixels.size == 0 or pixels.dtype.kind not in "buif":
        raise UserError(
            f"{name} holds {pixels.dtype} of shape {pixels.shape}: give real numbers of shape (H, W, bands) or "
            "(bands, H, W)"
        )
    return pixels


def stored_size(path: Path, upright: bool, max_pixels: int | None) -> tuple[int, int]:
    """Return the width and height of an image, from its header alone; raises UserError above the limit on pixels."""
    with errors_named(path):
        require_file(path)
        if path.suffix.lower() == ".npy":
            height, width, _ = bands_last(open_memmap(path, mode="r"), str(path)).shape
        else:
            with path.open("rb") as file:
                if file.read(4) not in SIGNATURES:
                    return image_size(path, upright, max_pixels)
                with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
                    width, height = tiff_size(content)
    if is_above_limit(width * height, max_pixels):
        raise too_large(path, width * height, " for each band")
    return width, height


def _read_all(path: Path, upright: bool, max_pixels: int | None) -> np.ndarray:
    """Return all bands of a file as `(H, W, C)`: NumPy arrays and TIFF as stored, others as Pillow reads them.

    Pillow has the limit on pixels itself; the other decoders have none.
    """
    with errors_named(path):
        if path.suffix.lower() == ".npy":
            stored_size(path, upright, max_pixels)
            return bands_last(np.load(path), str(path))
        content = file_content(path)
        if content.startswith(SIGNATURES):
            stored_size(path, upright, max_pixels)
            return bands_last(_decoder(tiff_decode, path)(content, index=None), str(path))
        if content[24:26] in _DEEP_COLOR and content.startswith(b"\x89PNG"):
            stored_size(path, upright, max_pixels)
            return bands_last(_decoder(png_decode, path)(content), str(path))
    image = open_image(path, upright, max_pixels)
    return bands_last(np.asarray(image.convert("RGB") if image.mode == "P" else image), str(path))


@lru_cache
def _count_bands(path: Path, upright: bool, max_pixels: int | None) -> int:
    return _read_all(path, upright, max_pixels).shape[2]


def _decoder(decode, path: Path):  # type: ignore[no-untyped-def]
    if decode is None:
        raise UserError(f"{path} needs a library for its bands: pip install 'fastfcn-pl[bands]'")
    return decode
