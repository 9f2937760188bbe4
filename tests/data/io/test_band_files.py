"""Images with any number of bands are read exactly; mistakes raise one line that names the file."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.lib.format import write_array_header_1_0
from PIL import Image

from fastfcn_pl.core.types import Bands, UserError
from fastfcn_pl.data.io import band_files
from fastfcn_pl.data.io.band_files import BandSource, band_pixels, read_bands, stored_size
from fastfcn_pl.data.io.tiff_header import tiff_size
from tests.fakes.bands import scene, write_tiff

PIXELS, _ = scene(0, (20, 30))


def _write_pages(path: Path, pixels: np.ndarray) -> None:
    first, *others = (Image.fromarray(np.ascontiguousarray(page)) for page in np.moveaxis(pixels, 2, 0))
    first.save(path, save_all=True, append_images=others)


WRITERS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "interleaved.tif": write_tiff,
    "pages.TIFF": _write_pages,
    "last.npy": np.save,
    "first.npy": lambda path, pixels: np.save(path, np.moveaxis(pixels, 2, 0)),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("name", WRITERS)
def test_all_bands_are_read_in_order_in_units_of_the_file(name: str, dtype: type, tmp_path: Path) -> None:
    pixels = (PIXELS % 251).astype(dtype) if dtype == np.uint8 else PIXELS.astype(dtype)
    WRITERS[name](tmp_path / name, pixels)
    image = read_bands([tmp_path / name], [[4, 0, 1]], upright=True)
    assert image.dtype == np.float32
    assert np.array_equal(image, pixels[..., [4, 0, 1]].astype(np.float32))


@pytest.mark.parametrize(("mode", "shape"), [("L", (20, 30)), ("RGB", (20, 30, 3)), ("I;16", (20, 30))])
def test_formats_of_photographs_have_bands_too(mode: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint16 if mode == "I;16" else np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    expected = pixels.reshape(20, 30, -1)
    image = read_bands([tmp_path / "image.png"], [range(expected.shape[2])], upright=True)
    assert np.array_equal(image, expected)


def test_a_png_of_16_bits_keeps_them(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), PIXELS[..., 2::-1])  # OpenCV stores blue first
    assert np.array_equal(read_bands([tmp_path / "deep.png"], [[0, 1, 2]], upright=True), PIXELS[..., :3])


def test_files_are_stacked(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[..., 3]).save(tmp_path / "depth.png")
    write_tiff(tmp_path / "color.tif", PIXELS[..., :3])
    source = BandSource([(tmp_path / "color.tif", tmp_path / "mask.png", tmp_path / "depth.png")], bands=((2, 0), (0,)))
    assert np.array_equal(source.image(0), PIXELS[..., [2, 0, 3]])
    assert [path.name for path in source.files(0)] == ["color.tif", "mask.png", "depth.png"]


def _nan(path: Path) -> None:
    pixels = PIXELS.astype(np.float32)
    pixels[3, :4, 2] = np.nan
    write_tiff(path, pixels)


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "photo.png": (
        lambda path: Image.new("RGB", (30, 20)).save(path),
        r"photo\.png has 3 bands, so there is no band 4 .*data\.bands=\[0, 2, 4\].*: give images like those",
    ),
    "nan.tif": (_nan, r"nan\.tif has 4 pixels that are NaN, infinite or beyond float32, in band 2: fill them"),
    "more.tif": (
        lambda path: write_tiff(path, PIXELS[..., [0, 1, 2, 3, 4, 4]]),
        r"more\.tif has 6 bands, but .*reference\.tif has 5: give files of one kind",
    ),
    "short.tif": (
        lambda path: path.write_bytes(b"II*\0junk"),
        r"short\.tif cannot be read as an image \(.*\): restore",
    ),
    "text.npy": (lambda path: path.write_text("no array"), r"text\.npy cannot be read as an image \(.*\): restore it"),
    "objects.npy": (
        lambda path: np.save(path, np.full((4, 5, 5), {}, object)),
        r"objects\.npy cannot be read as an image \(Array can't be memory-mapped: Python objects",
    ),
    "pickle.npy": (
        lambda path: path.write_bytes(pickle.dumps(PIXELS)),
        r"pickle\.npy cannot be read as an image \(the magic string",
    ),
    "infinite.npy": (
        lambda path: np.save(path, np.full((5, 4, 5), 1e300)),
        r"infinite\.npy has 20 pixels that are NaN, infinite or beyond float32, in band 0, 2, 4: fill them",
    ),
    "none.npy": (
        lambda path: np.save(path, PIXELS[..., :0]),
        r"none\.npy holds uint16 of shape \(20, 30, 0\): give real numbers",
    ),
    "fifo.npy": (os.mkfifo, r"fifo\.npy cannot be read as an image \(it is a FIFO\): leave it out"),
    "fifo.tif": (os.mkfifo, r"fifo\.tif cannot be read as an image \(it is a FIFO\): leave it out"),
    "complex.npy": (
        lambda path: np.save(path, np.zeros((4, 5, 5), np.complex64)),
        r"complex\.npy holds complex64 of shape \(4, 5, 5\): give real numbers",
    ),
    "missing.npy": (lambda path: None, r"missing\.npy is missing: restore it"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_one_line(name: str, tmp_path: Path) -> None:
    write, message = MISTAKES[name]
    write(tmp_path / name)
    write_tiff(tmp_path / "reference.tif", PIXELS)
    reference = [tmp_path / "reference.tif"] if name == "more.tif" else []
    with pytest.raises(UserError, match=message) as caught:
        read_bands([tmp_path / name], [[0, 2, 4]], True, None, reference)
    assert "\n" not in str(caught.value)


def _claim(width: int, height: int, path: Path) -> None:
    """Write an image of 20x30 whose header claims another size."""
    if path.suffix == ".npy":
        with path.open("wb") as file:
            write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": (height, width, 5)})
    else:
        write_tiff(path, PIXELS)
        content = path.read_bytes()
        for tag, side, claimed in ((256, 30, width), (257, 20, height)):
            content = content.replace(struct.pack("<HHII", tag, 4, 1, side), struct.pack("<HHII", tag, 4, 1, claimed))
        path.write_bytes(content)


def test_a_header_that_claims_too_many_pixels_is_refused(tmp_path: Path) -> None:
    _claim(100_000, 100_000, tmp_path / "image.tif")
    refused = r"has 10000000000 pixels, too many .*takes 74\.5 GiB for each band: if you trust it, set data\.max_pixels"
    with pytest.raises(UserError, match=refused):
        read_bands([tmp_path / "image.tif"], [[0]], True)
    _claim(100_000, 100_000, tmp_path / "image.npy")  # which then is too short
    with pytest.raises(UserError, match=r"image\.npy cannot be read as an image \(mmap length is greater"):
        read_bands([tmp_path / "image.npy"], [[0]], True)


@pytest.mark.parametrize("name", [*WRITERS, "deep.png"])
def test_the_limit_counts_pixels_not_bands(name: str, tmp_path: Path) -> None:
    write = WRITERS.get(name, lambda path, pixels: cv2.imwrite(str(path), pixels[..., :3]))
    write(tmp_path / name, PIXELS)
    with pytest.raises(UserError, match=r"has 600 pixels, too many for a file of unknown origin"):
        read_bands([tmp_path / name], [[0]], True, max_pixels=598)
    assert read_bands([tmp_path / name], [[0]], True, max_pixels=600).shape == (20, 30, 1)
    assert stored_size(tmp_path / name, True, 600) == (30, 20)


@pytest.mark.parametrize("order", "<>")
def test_sizes_of_bigtiff_in_both_byte_orders(order: str) -> None:
    content = b"".join(
        [
            {"<": b"II+\0", ">": b"MM\0+"}[order],
            struct.pack(f"{order}HHQQ", 8, 0, 16, 2),
            struct.pack(f"{order}HHQQ", 256, 16, 1, 123_456),
            struct.pack(f"{order}HHQHHI", 257, 3, 1, 789, 0, 0),
            struct.pack(f"{order}Q", 0),
        ]
    )
    assert tiff_size(content) == (123_456, 789)


@pytest.mark.parametrize("name", WRITERS)
def test_files_that_are_cut_off_are_refused_wherever_they_end(name: str, tmp_path: Path) -> None:
    """A decoder of TIFF would take the end of a file for that of its pages."""
    WRITERS[name](tmp_path / name, PIXELS)
    content = (tmp_path / name).read_bytes()
    for length in range(9, len(content), 211):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(UserError, match=rf"{name} cannot be read as an image \(.*\): restore it"):
            read_bands([tmp_path / name], [[0]], True)


def test_modalities_have_one_size(tmp_path: Path) -> None:
    write_tiff(tmp_path / "color.tif", PIXELS)
    write_tiff(tmp_path / "depth.tif", PIXELS[:10])
    with pytest.raises(UserError, match=r"depth\.tif is 30x10 but .*color\.tif is 30x20: resample"):
        read_bands([tmp_path / "color.tif", tmp_path / "depth.tif"], [[0], [0]], upright=True)
    with pytest.raises(UserError, match=r"takes bands of 2 files, and 1 are given"):
        read_bands([tmp_path / "color.tif"], [[0], [0]], upright=True)


def test_the_library_for_bands_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(band_files, "tiff_decode", None)
    write_tiff(tmp_path / "image.tif", PIXELS)
    with pytest.raises(UserError, match=r"image\.tif needs .*pip install 'fastfcn-pl\[bands\]'"):
        read_bands([tmp_path / "image.tif"], [[0]], upright=True)


def test_arrays_have_the_bands_of_the_network() -> None:
    bands = Bands(((1, 3),), (0,))
    image = PIXELS[..., :2]
    for given in (image, np.moveaxis(image, 2, 0)):
        assert np.array_equal(band_pixels(given, bands), image.astype(np.float32))
    with pytest.raises(UserError, match=r"of uint16 and shape \(20, 30, 5\), and the network takes 2 bands: give"):
        band_pixels(PIXELS, bands)
    with pytest.raises(UserError, match=r"the image is a int: give an array of 2 bands"):
        band_pixels(3, bands)
