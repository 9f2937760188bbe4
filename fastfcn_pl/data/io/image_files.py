"""Reading image files and label files, whatever their format."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fastfcn_pl.core.types import UserError, listed
from fastfcn_pl.data.io.label_ids import look_up
from fastfcn_pl.data.io.png import indices
from fastfcn_pl.data.io.walk import strangeness
from fastfcn_pl.data.transforms.image_ops import decode_image

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
"""The formats that are read, in Pillow's words: it knows others, one of which starts another program."""
MAX_PIXELS = "FASTFCN_MAX_PIXELS"
"""The environment variable for the pixels that an image may have; without it Pillow's own limit holds."""
warnings.filterwarnings("ignore", module=r"PIL\.")  # of damage that it reads past, and of half the pixels that it takes

MaskReader = Callable[[Image.Image, Path], np.ndarray]
"""Turns what a label file holds into a map of ids `(H, W)`; the path is for messages."""


def read_ids(mask: Image.Image, path: Path) -> np.ndarray:
    """Return ids as they are stored: numbers of 8 to 32 bits, or indices of a palette image, whose colours say nothing.

    Raises UserError for colours.
    """
    if mask.mode in ("L", "P") or mask.mode.startswith("I"):
        return np.asarray(mask)
    if mask.mode == "1":
        return np.asarray(mask, dtype=np.uint8)
    raise UserError(
        f"{path} is not a map of ids (its mode is {mask.mode}): store one integer a pixel, or, if its colours are "
        f"the classes, read it with data=folder data.masks=colors"
    )


@dataclass(frozen=True)
class ColorReader:
    """Reads colours as classes: `labels` leads from 0xRRGGBB to a class index or `IGNORE`."""

    labels: Mapping[int, int]

    def __call__(self, mask: Image.Image, path: Path) -> np.ndarray:
        red, green, blue = (channel.astype(np.int32) for channel in np.moveaxis(np.asarray(_rgb(mask, path)), 2, 0))
        colors = red << 16 | green << 8 | blue
        labels = look_up(colors, self.labels)
        if labels.min() < 0:
            unknown = [f"#{color:06x}" for color in np.unique(colors[labels < 0])]
            raise UserError(
                f"{path} holds the colour {listed(unknown)}, which is no class's: mend the mask, add it to "
                f"data.palette, or to data.remap (0x{unknown[0][1:]}: 255 ignores it)"
            )
        return labels.astype(np.uint8)


@dataclass(frozen=True)
class FileSource:
    """Pairs of image file and label file: PNG, JPEG, TIFF, WebP or BMP, of several pages the first.

    Images become RGB of 8 bits: of 16 bits the high byte is taken, alpha is dropped, not blended. With `upright`,
    image and mask are each turned by the EXIF orientation that they carry; published data sets are labelled as stored.
    """

    pairs: list[tuple[Path, Path]]
    read_mask: MaskReader = read_ids
    upright: bool = False

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, ids = self.image(index), self.ids(index)
        self.check_sizes(index, image, ids)
        return image, ids

    def image(self, index: int) -> np.ndarray:
        """Return the RGB image `(H, W, 3)` of a pair."""
        return _pixels(self.pairs[index][0], self.upright)

    def ids(self, index: int) -> np.ndarray:
        """Return the ids `(H, W)` of a pair."""
        path = self.pairs[index][1]
        if self.read_mask is read_ids and (ids := _indices(path)) is not None:
            return ids
        mask = _open(path, self.upright)
        if mask.format in ("JPEG", "MPO"):
            raise UserError(f"{path} is a JPEG, which blurs what it stores: make masks anew, as PNG")
        return self.read_mask(mask, path)

    def check_sizes(self, index: int, image: np.ndarray, ids: np.ndarray) -> None:
        """Raise UserError where image and ids of a pair differ in size."""
        if image.shape[:2] == ids.shape:
            return
        image_path, mask_path = self.pairs[index]
        turned = self.upright and image.shape[:2] == ids.shape[::-1]
        remedy = "label the image as its EXIF orientation turns it" if turned else "make them equal"
        raise UserError(f"{mask_path} is {_size(ids)} but its image {image_path} is {_size(image)}: {remedy}")

    def name(self, index: int) -> str:
        return str(self.pairs[index][1])

    def files(self, index: int) -> tuple[Path, ...]:
        return self.pairs[index]


def read_image(path: Path, upright: bool) -> Image.Image:
    """Return the RGB image of a file, turned `upright` if asked; raises UserError where it is not an image."""
    return _rgb(_open(path, upright), path)


def rgb_pixels(image: object) -> np.ndarray:
    """Return the pixels `(H, W, 3)`, uint8, of a file, a PIL image, or an array that has this form already.

    A file is turned by its EXIF orientation. Raises UserError for anything else, such as numbers between 0 and 1.
    """
    if isinstance(image, (str, os.PathLike)):
        return np.asarray(read_image(Path(image), upright=True))
    if isinstance(image, Image.Image):
        try:
            pixels = np.asarray(_rgb(image if image.mode == "RGB" else image.copy(), "the image"))
        except (MemoryError, UserError):
            raise
        except Exception as error:  # its file is read only now, and fails as in `_open`
            raise UserError(f"the image cannot be read ({' '.join(str(error).split())}): restore its file") from error
    elif isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        pixels = np.asarray(image)
    else:
        shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
        form = "" if shape is None else f" of {dtype}, of shape {tuple(shape)}"
        raise UserError(
            f"the image is of type {type(image).__name__}{form}: give RGB of 0 to 255 as a numpy array of uint8, of "
            "shape (H, W, 3), a PIL image, or the path of a file"
        )
    if pixels.size == 0:
        raise UserError(f"the image has no pixels (it is {_size(pixels)}): give one of 1x1 at least")
    return pixels


def _pixels(path: Path, upright: bool) -> np.ndarray:
    """Return the RGB image `(H, W, 3)` of a file; a usual JPEG goes past Pillow, whose copies take half of its time."""
    try:
        content = _content(path)
        with _identified(BytesIO(content)) as image:
            stored = not upright or image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            usual = image.format == "JPEG" and image.mode == "RGB" and stored
        pixels = decode_image(np.frombuffer(content, np.uint8)) if usual else None
    except Exception:  # Pillow's way says what is wrong
        pixels = None
    if pixels is not None:
        return pixels
    return np.asarray(_rgb(_open(path, upright), path))


def _indices(path: Path) -> np.ndarray | None:
    """Return the ids `(H, W)` of a usual mask, which go past Pillow; None for any other file, and for none at all."""
    try:
        content = _content(path)
    except (OSError, UserError):  # Pillow's way says what is wrong
        return None
    pixels = int.from_bytes(content[16:20]) * int.from_bytes(content[20:24])  # if it is a PNG
    return None if pixels > 2 * _half_of_limit() else indices(content)


def _content(path: Path) -> bytes:
    """Return the bytes of a file; raises UserError for a FIFO and its like, which might never end."""
    if (strange := strangeness(path)) and not path.is_dir():
        raise UserError(f"{path} cannot be read as an image (it is {strange}): leave it out")
    return path.read_bytes()


def _half_of_limit() -> int:
    """Return half of the pixels that an image may have, which is what Pillow knows the limit by, and tell it to."""
    if given := os.environ.get(MAX_PIXELS):
        if not given.isdecimal() or int(given) == 0:
            raise UserError(f"{MAX_PIXELS}={given}: give the pixels that an image may have, such as 400000000")
        Image.MAX_IMAGE_PIXELS = -(-int(given) // 2)
    return Image.MAX_IMAGE_PIXELS or 2**62


def _identified(file: BinaryIO) -> Image.Image:
    """Open an image of one of `FORMATS`, of no more pixels than are allowed."""
    _half_of_limit()
    return Image.open(file, formats=FORMATS)


def _open(path: Path, upright: bool) -> Image.Image:
    """Read a whole file, so that a truncated one is found here and named."""
    try:
        with _identified(BytesIO(_content(path))) as image:
            image.load()
            if upright:
                ImageOps.exif_transpose(image, in_place=True)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it, or take it off the split's list") from None
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory: make it smaller, or leave it out") from error
    except Image.DecompressionBombError as error:
        pixels = (re.findall(r"\d+", str(error)) or ["?"])[0]
        raise UserError(
            f"{path} has {pixels} pixels, more than a file of unknown origin should: if you trust it, allow so many by "
            f"the environment variable {MAX_PIXELS}={pixels}"
        ) from error
    except Exception as error:  # a file that is not an image makes its decoder fail in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(FORMATS)}"
        raise UserError(f"{path} cannot be read as an image ({reason}): restore it or leave it out") from error
    return image


def _rgb(image: Image.Image, path: Path | str) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):  # Pillow would clip it
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UserError(f"{path} holds numbers of 32 bits, whose range is not known: store 8 or 16 bits a channel")
    image.info.pop("transparency", None)  # Pillow would warn that it is dropped
    return image.convert("RGB")


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
