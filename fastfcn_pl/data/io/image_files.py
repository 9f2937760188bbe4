"""Reading of image files and label files."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fastfcn_pl.core.types import UserError, listed
from fastfcn_pl.data.io.label_ids import look_up
from fastfcn_pl.data.io.pixel_arrays import RULE, rgb_array
from fastfcn_pl.data.io.pixel_limit import half_pixel_limit, is_above_limit, too_large
from fastfcn_pl.data.io.png import decode_ids
from fastfcn_pl.data.io.walk import non_file_kind

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
"""Pillow's names of the accepted formats; it knows others, and for EPS it starts another program."""
warnings.filterwarnings("ignore", module=r"PIL\.")  # about recoverable damage and half of the pixel limit

MaskReader = Callable[[Image.Image, Path], np.ndarray]
"""Converts a label image to ids `(H, W)`; the path is for messages."""


def read_ids(mask: Image.Image, path: Path) -> np.ndarray:
    """Return stored ids: integers of 8 to 32 bits, or palette indices, whose colours are ignored.

    Raises UserError for an RGB image.
    """
    if mask.mode in ("L", "P") or mask.mode.startswith("I"):
        return np.asarray(mask)
    if mask.mode == "1":
        return np.asarray(mask, dtype=np.uint8)
    raise UserError(
        f"{path} is not a map of ids (its mode is {mask.mode}): store one integer a pixel, or, if its colours "
        "are the classes, set data=folder data.masks=colors"
    )


def read_colors(mask: Image.Image, path: Path) -> np.ndarray:
    """Return the colours of a label image as 0xRRGGBB."""
    red, green, blue = (channel.astype(np.int32) for channel in np.moveaxis(np.asarray(_rgb(mask, path)), 2, 0))
    return red << 16 | green << 8 | blue


@dataclass(frozen=True)
class ColorReader:
    """Mask reader for colours; `labels` maps 0xRRGGBB to a class index or `IGNORE`."""

    labels: Mapping[int, int]

    def __call__(self, mask: Image.Image, path: Path) -> np.ndarray:
        colors = read_colors(mask, path)
        labels = look_up(colors, self.labels)
        if labels.min() < 0:
            unknown = [f"#{color:06x}" for color in np.unique(colors[labels < 0])]
            raise UserError(
                f"{path} has the colour {listed(unknown)}, which belongs to no class: fix the mask, or add the colour "
                f"to data.palette or data.remap (0x{unknown[0][1:]}: 255 ignores it)"
            )
        return labels.astype(np.uint8)


@dataclass(frozen=True)
class FileSource:
    """Pairs of image and label files in PNG, JPEG, TIFF, WebP or BMP; only the first page is read.

    Images become 8-bit RGB: 16-bit values keep their high byte, and alpha is dropped, not blended. With `upright`,
    image and mask are each rotated by their own EXIF orientation; published data sets are labelled as stored. Files of
    more than `max_pixels` are refused; None means the limit of the environment or of Pillow.
    """

    pairs: Sequence[tuple[Path, ...]]
    read_mask: MaskReader = read_ids
    upright: bool = False
    max_pixels: int | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, ids = self.image(index), self.ids(index)
        self.check_sizes(index, image, ids)
        return image, ids

    def image(self, index: int) -> np.ndarray:
        """Return the RGB image `(H, W, 3)` of a pair."""
        return np.asarray(read_image(self.pairs[index][0], self.upright, self.max_pixels))

    def ids(self, index: int) -> np.ndarray:
        """Return the ids `(H, W)` of a pair."""
        path = self.pairs[index][1]
        if self.read_mask is read_ids and (ids := _read_ids_fast(path, self.max_pixels)) is not None:
            return ids
        mask = open_image(path, self.upright, self.max_pixels)
        if mask.format in ("JPEG", "MPO"):
            raise UserError(f"{path} is a JPEG, whose compression changes labels: create the masks again as PNG")
        return self.read_mask(mask, path)

    def check_sizes(self, index: int, image: np.ndarray, ids: np.ndarray) -> None:
        """Raise UserError if image and ids of a pair differ in size."""
        if image.shape[:2] == ids.shape:
            return
        image_path, mask_path = self.pairs[index][:2]
        rotated = self.upright and image.shape[:2] == ids.shape[::-1]
        remedy = "label the image as its EXIF orientation shows it" if rotated else "make them equal"
        raise UserError(f"{mask_path} is {size_text(ids)} but its image {image_path} is {size_text(image)}: {remedy}")

    def name(self, index: int) -> str:
        return str(self.pairs[index][1])

    def files(self, index: int) -> tuple[Path, ...]:
        return self.pairs[index]


def read_image(path: Path, upright: bool, max_pixels: int | None = None) -> Image.Image:
    """Read a file as RGB image, `upright` by its EXIF orientation or as stored; raises UserError if it is not one."""
    return _rgb(open_image(path, upright, max_pixels), path)


def rgb_pixels(image: object) -> np.ndarray:
    """Return the pixels `(H, W, 3)`, uint8, of a file, a PIL image or an array that `rgb_array` takes.

    A file is rotated by its EXIF orientation. Raises UserError for anything else.
    """
    if isinstance(image, (str, os.PathLike)):
        return np.asarray(read_image(Path(image), upright=True))
    if isinstance(image, Image.Image):
        try:
            pixels = np.asarray(_rgb(image if image.mode == "RGB" else image.copy(), "the image"))
        except (MemoryError, UserError):
            raise
        except Exception as error:  # Pillow reads the file only now, see `open_image`
            raise UserError(f"the image cannot be read ({' '.join(str(error).split())}): restore its file") from error
    elif isinstance(image, np.ndarray):
        pixels = rgb_array(image)
    else:
        shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
        form = "" if shape is None else f" of {dtype} and shape {tuple(shape)}"
        raise UserError(f"the image is a {type(image).__name__}{form}: {RULE}")
    if pixels.size == 0:
        raise UserError(f"the image is empty ({size_text(pixels)}): give one of at least 1x1")
    return pixels


def _read_ids_fast(path: Path, max_pixels: int | None) -> np.ndarray | None:
    """Return the ids `(H, W)` of a PNG mask without Pillow; None if the file is missing or needs Pillow."""
    try:
        content = file_content(path)
    except (OSError, UserError):  # reading with Pillow then raises the right message
        return None
    pixels = int.from_bytes(content[16:20]) * int.from_bytes(content[20:24])  # in the header of a PNG
    return None if is_above_limit(pixels, max_pixels) else decode_ids(content)


def file_content(path: Path) -> bytes:
    """Return the bytes of a file; raises UserError for a FIFO or device, which may never end."""
    require_file(path)
    return path.read_bytes()


def require_file(path: Path) -> None:
    """Raise UserError for a FIFO or device."""
    if (kind := non_file_kind(path)) and not path.is_dir():
        raise UserError(f"{path} cannot be read as an image (it is {kind}): leave it out")


@contextmanager
def _opened(file: BinaryIO, max_pixels: int | None) -> Iterator[Image.Image]:
    """Open an image in one of `FORMATS`, with the limit on pixels that also counts while it is decoded."""
    default = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = half_pixel_limit(max_pixels)
        with Image.open(file, formats=FORMATS) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = default


def image_size(path: Path, upright: bool, max_pixels: int | None = None) -> tuple[int, int]:
    """Return the width and height of an image, from its header alone; raises UserError if it is not one."""
    with errors_named(path), path.open("rb") as file, _opened(file, max_pixels) as image:
        turned = upright and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return image.size[::-1] if turned else image.size


def open_image(path: Path, upright: bool, max_pixels: int | None = None) -> Image.Image:
    """Open and decode a file, so that a damaged one is reported by name."""
    with errors_named(path), _opened(BytesIO(file_content(path)), max_pixels) as image:
        image.load()
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
    return image


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Raise UserError with the `path` for an error of reading it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it, or take it off the split's list") from None
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory: shrink it, or leave it out") from error
    except Image.DecompressionBombError as error:
        raise too_large(path, int((re.findall(r"\d+", str(error)) or ["0"])[0])) from error
    except Exception as error:  # decoders raise anything for a damaged file
        unknown = f"not one of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else ""
        reason = unknown or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as an image ({reason}): restore it, or leave it out") from error


def _rgb(image: Image.Image, path: Path | str) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):  # Pillow would clip values
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UserError(f"{path} has 32 bits a channel, whose range is unknown: store 8 or 16 bits a channel")
    image.info.pop("transparency", None)  # Pillow would warn about dropping it
    return image.convert("RGB")


def size_text(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
