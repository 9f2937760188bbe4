"""Reading of files: every format and mode becomes 8-bit RGB and a map of ids, or one line that names the file."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.data.io import png
from fastfcn_pl.data.io.image_files import ColorReader, FileSource, read_image, rgb_pixels
from fastfcn_pl.data.io.png import decode_ids
from tests.fakes.folder import COLORS, photograph

IMAGE, IDS = photograph(0)
PHOTO = Image.fromarray(IMAGE)
GRAY = np.asarray(PHOTO.convert("L"))
NOISE = np.random.default_rng(0).integers(0, 256, (400, 500), dtype=np.uint8)
BY_COLOR = {0x5A783C: 0, 0xC83C28: 1, 0x2850BE: 2}  # COLORS
ORIENTATION = 0x0112


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Return a part of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png16(path: Path, pixels: np.ndarray) -> None:
    """Write a 16-bit RGB PNG `(H, W, 3)`, which Pillow reads but does not write."""

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _source(folder: Path, image: str = "image.png", mask: str = "mask.png", **options: Any) -> FileSource:
    """Return a source of one pair; a missing file becomes a photograph or its mask."""
    if not (folder / image).exists():
        PHOTO.save(folder / image)
    if not (folder / mask).exists():
        Image.fromarray(IDS).save(folder / mask)
    return FileSource([(folder / image, folder / mask)], **options)


def _image(folder: Path, name: str, **options: Any) -> np.ndarray:
    image, _ = _source(folder, image=name, **options).read(0)
    assert (image.dtype, image.shape[2:]) == (np.uint8, (3,))
    return image


@pytest.mark.parametrize("extension", ["png", "tif", "bmp", "webp", "jpg"])
def test_every_format_is_read(tmp_path: Path, extension: str) -> None:
    lossy = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}
    PHOTO.save(tmp_path / f"image.{extension}", **lossy.get(extension, {}))
    error = np.abs(_image(tmp_path, f"image.{extension}").astype(int) - IMAGE)
    assert error.mean() < 3 if extension == "jpg" else error.max() == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    stored = PHOTO.convert(mode)
    stored.save(tmp_path / "image.png")
    assert np.array_equal(_image(tmp_path, "image.png"), np.asarray(stored.convert("RGB")))


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    alpha = Image.fromarray((IDS * 100).astype(np.uint8))
    Image.merge("RGBA", [*PHOTO.split(), alpha]).save(tmp_path / "rgba.png")
    Image.merge("LA", [Image.fromarray(GRAY), alpha]).save(tmp_path / "la.png")
    assert np.array_equal(_image(tmp_path, "rgba.png"), IMAGE)
    assert np.array_equal(_image(tmp_path, "la.png"), GRAY[..., None].repeat(3, 2))


def test_the_transparency_of_a_palette_is_dropped_silently(tmp_path: Path) -> None:
    stored = PHOTO.convert("P")
    stored.save(tmp_path / "image.png", transparency=bytes(range(200)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(_image(tmp_path, "image.png"), np.asarray(stored.convert("RGB")))


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_gray_of_16_bits_is_scaled_not_clipped(tmp_path: Path, extension: str) -> None:
    Image.fromarray(GRAY.astype(np.uint16) * 257).save(tmp_path / f"image.{extension}")
    assert np.array_equal(_image(tmp_path, f"image.{extension}"), GRAY[..., None].repeat(3, 2))


def test_colours_of_16_bits_are_scaled(tmp_path: Path) -> None:
    _png16(tmp_path / "image.png", IMAGE.astype(np.uint16) * 256 + 77)
    assert np.array_equal(_image(tmp_path, "image.png"), IMAGE)


def test_images_of_32_bits_are_refused(tmp_path: Path) -> None:
    for name, dtype in (("int.tif", np.int32), ("float.tif", np.float32)):
        Image.fromarray(GRAY.astype(dtype)).save(tmp_path / name)
        with pytest.raises(UserError, match=rf"{name} has 32 bits a channel.*: store 8 or 16 bits"):
            _image(tmp_path, name)


def test_cmyk_as_adobe_stores_it_is_not_inverted(tmp_path: Path) -> None:
    PHOTO.convert("CMYK").save(tmp_path / "image.jpg", quality=95)
    with Image.open(tmp_path / "image.jpg") as stored:
        assert (stored.mode, "adobe" in stored.info) == ("CMYK", True)
    assert np.abs(_image(tmp_path, "image.jpg").astype(int) - IMAGE).mean() < 6


@pytest.mark.parametrize("name", ["image.tif", "image.webp", "image.png"])
def test_the_first_of_several_pages_is_read(tmp_path: Path, name: str) -> None:
    other = Image.fromarray(255 - IMAGE)
    PHOTO.save(tmp_path / name, save_all=True, append_images=[other], lossless=True)
    assert np.array_equal(_image(tmp_path, name), IMAGE)


@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.webp"])
def test_exif_rotates_an_image_if_upright(tmp_path: Path, name: str) -> None:
    exact = {"lossless": True} if name.endswith("webp") else {"quality": 95, "subsampling": 0}
    PHOTO.save(tmp_path / name, exif=_turned(6), **exact)  # 6: to be turned clockwise
    stored = _image(tmp_path, name)
    Image.fromarray(np.rot90(IDS, -1)).save(tmp_path / "upright.png")
    turned = _image(tmp_path, name, mask="upright.png", upright=True)
    assert turned.shape == (80, 60, 3)
    assert np.array_equal(turned, np.rot90(stored, -1))


def test_exif_rotates_only_a_mask_with_its_own_orientation(tmp_path: Path) -> None:
    PHOTO.save(tmp_path / "image.png", exif=_turned(3))
    Image.fromarray(IDS).save(tmp_path / "plain.png")
    Image.fromarray(IDS).save(tmp_path / "carrying.png", exif=_turned(3))
    read = {name: _source(tmp_path, mask=f"{name}.png", upright=True).read(0) for name in ("plain", "carrying")}
    assert np.array_equal(read["plain"][1], IDS)
    assert np.array_equal(read["carrying"][1], IDS[::-1, ::-1])
    assert np.array_equal(read["plain"][0], IMAGE[::-1, ::-1])


def test_a_mask_of_the_unrotated_image_is_an_error(tmp_path: Path) -> None:
    PHOTO.save(tmp_path / "image.jpg", exif=_turned(6))
    with pytest.raises(UserError, match=r"mask\.png is 80x60 but its image .*image\.jpg is 60x80: label .* EXIF"):
        _source(tmp_path, image="image.jpg", upright=True).read(0)


@pytest.mark.parametrize("name", ["mask.png", "mask.tif", "mask.bmp"])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_ids_and_indices_are_read_as_stored(tmp_path: Path, name: str, mode: str) -> None:
    mask = Image.fromarray(IDS)
    if mode == "P":
        mask.putpalette(COLORS[::-1].ravel().tolist())
    mask.save(tmp_path / name)
    _, read = _source(tmp_path, mask=name).read(0)
    assert np.array_equal(read, IDS)


def test_masks_are_equal_with_and_without_the_fast_decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast decoders read gray and palette PNGs; files with transparency or an orientation are left to Pillow."""
    mask = Image.fromarray(IDS * 80)
    indexed, few, turned = mask.copy(), Image.fromarray(IDS), {"exif": _turned(3)}
    indexed.putpalette([255 - value // 3 for value in range(768)])
    few.putpalette(COLORS[::-1].ravel().tolist())  # stored in 2 bits
    usual = {"gray": (mask, {}), "palette": (indexed, {}), "several chunks": (Image.fromarray(NOISE).convert("P"), {})}
    others = {"transparent": (mask, {"transparency": 80}), "see-through palette": (indexed, {"transparency": 2})}
    others |= {"deep": (Image.fromarray(IDS.astype(np.uint16) * 999), {}), "few colours": (few, {})}
    others |= {"turned": (mask, turned), "turned palette": (indexed, turned)}
    paths = [tmp_path / f"{name}.png" for name in usual | others]
    for path, (stored, options) in zip(paths, (usual | others).values(), strict=True):
        stored.save(path, **options)
    assert [decode_ids(path.read_bytes()) is not None for path in paths] == [True] * len(usual) + [False] * len(others)
    source = FileSource([(path, path) for path in paths], upright=True)
    fast = [source.ids(i) for i in range(len(paths))]
    monkeypatch.setattr(png, "png_decode", None)
    assert decode_ids(paths[0].read_bytes()) is None
    for i, ids in enumerate(fast):
        assert ids.dtype == source.ids(i).dtype
        np.testing.assert_array_equal(ids, source.ids(i))


def test_a_palette_image_with_filters_or_interlaced_is_left_to_pillow(tmp_path: Path) -> None:
    """Rows of filter 2 are differences to the row above; one byte of the header marks an interlaced file."""
    rows = np.concatenate([np.full((60, 1), 2, np.uint8), np.diff(IDS, axis=0, prepend=IDS[:1] * 0)], axis=1)
    palette = [_chunk(b"IHDR", struct.pack(">IIBBBBB", 80, 60, 8, 3, 0, 0, 0)), _chunk(b"PLTE", bytes(range(9)))]
    content = [b"\x89PNG\r\n\x1a\n", *palette, _chunk(b"IDAT", zlib.compress(rows.tobytes())), _chunk(b"IEND", b"")]
    (tmp_path / "mask.png").write_bytes(b"".join(content))
    assert decode_ids(b"".join(content)) is None
    assert np.array_equal(_source(tmp_path).ids(0), IDS)
    plain = np.concatenate([np.zeros((60, 1), np.uint8), IDS], axis=1)
    content[3] = _chunk(b"IDAT", zlib.compress(plain.tobytes()))
    assert np.array_equal(decode_ids(b"".join(content)), IDS)
    content[1] = _chunk(b"IHDR", struct.pack(">IIBBBBB", 80, 60, 8, 3, 0, 0, 1))
    assert decode_ids(b"".join(content)) is None


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["L", "P"])
def test_the_fast_decoders_refuse_damaged_files(tmp_path: Path, mode: str) -> None:
    """Pillow then reads the file and reports its name."""
    Image.fromarray(NOISE[:40]).convert(mode).save(tmp_path / "mask.png")
    content = (tmp_path / "mask.png").read_bytes()
    assert decode_ids(content) is not None
    assert all(decode_ids(content[:cut]) is None for cut in range(len(content) - 16))
    flipped = bytearray(content)
    flipped[-100] ^= 1
    assert decode_ids(bytes(flipped)) is None
    (tmp_path / "mask.png").write_bytes(content[:1500])
    with pytest.raises(UserError, match=r"mask\.png cannot be read as an image \(.+\): restore it"):
        _source(tmp_path).ids(0)


def test_a_mask_of_one_bit_holds_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(IDS == 1).save(tmp_path / "mask.png")
    assert np.array_equal(_source(tmp_path).read(0)[1], IDS == 1)


@pytest.mark.parametrize(("name", "dtype"), [("mask.png", np.uint16), ("mask.tif", np.uint16), ("mask.tif", np.int32)])
def test_ids_beyond_8_bits_are_read_as_stored(tmp_path: Path, name: str, dtype: type) -> None:
    ids = IDS.astype(dtype) * 30_000
    Image.fromarray(ids).save(tmp_path / name)
    assert np.array_equal(_source(tmp_path, mask=name).read(0)[1], ids)


def test_colours_become_class_indices(tmp_path: Path) -> None:
    colors = COLORS[IDS].astype(np.uint8)
    colors[0] = 255
    reader = ColorReader({**BY_COLOR, 0xFFFFFF: IGNORE})
    expected = np.concatenate([np.full_like(IDS[:1], IGNORE), IDS[1:]])
    rgb = Image.fromarray(colors)
    for name, mask in {"rgb": rgb, "rgba": rgb.convert("RGBA"), "palette": rgb.quantize(4)}.items():
        mask.save(tmp_path / f"{name}.png")
        assert np.array_equal(_source(tmp_path, mask=f"{name}.png", read_mask=reader).read(0)[1], expected), name


def test_a_colour_of_no_class_is_named(tmp_path: Path) -> None:
    colors = COLORS[IDS].astype(np.uint8)
    colors[3, 4] = (1, 2, 255)
    Image.fromarray(colors).save(tmp_path / "mask.png")
    line = r"mask\.png has the colour #0102ff, which belongs to no class: .* data\.remap \(0x0102ff: 255 ignores it\)"
    with pytest.raises(UserError, match=line):
        _source(tmp_path, read_mask=ColorReader(BY_COLOR)).read(0)


def test_the_first_of_many_unknown_colours_are_named(tmp_path: Path) -> None:
    PHOTO.save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=r"has the colour #\w{6}(, #\w{6}){7} and \d+ more, which"):
        _source(tmp_path, read_mask=ColorReader(BY_COLOR)).read(0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "F"])
def test_rgb_masks_are_refused_as_ids(tmp_path: Path, mode: str) -> None:
    name = "mask.tif" if mode == "F" else "mask.png"
    PHOTO.convert(mode).save(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} is not a map of ids \(its mode is {mode}\): .*data\.masks=colors"):
        _source(tmp_path, mask=name).read(0)


@pytest.mark.parametrize("reader", [{}, {"read_mask": ColorReader(BY_COLOR)}])
def test_a_mask_in_jpeg_is_refused(tmp_path: Path, reader: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"mask\.jpg is a JPEG, whose compression changes labels: .*PNG"):
        _source(tmp_path, mask="mask.jpg", **reader).read(0)


def test_different_sizes_are_an_error(tmp_path: Path) -> None:
    Image.fromarray(IDS[:5]).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=r"mask\.png is 80x5 but its image .*image\.png is 80x60: make them equal"):
        _source(tmp_path).read(0)


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.tif", "image.webp", "image.bmp"])
@pytest.mark.parametrize("kept", [0, 40, 2000])
def test_a_truncated_image_is_named(tmp_path: Path, name: str, kept: int) -> None:
    source = _source(tmp_path, image=name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: min(kept, len(content) // 2)])
    with pytest.raises(UserError, match=rf"{name} cannot be read as an image \(.+\): restore it, or leave it out"):
        source.read(0)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png cannot be read as an image \(.*[Dd]irectory"):
        _source(tmp_path, image="folder.png").read(0)
    source = _source(tmp_path)
    (tmp_path / "mask.png").unlink()
    with pytest.raises(UserError, match=r"mask\.png is missing: restore it, or take it off the split's list"):
        source.read(0)


def test_an_empty_image_file_is_named(tmp_path: Path) -> None:
    PHOTO.save(tmp_path / "image.bmp")
    content = bytearray((tmp_path / "image.bmp").read_bytes())
    content[18:22] = bytes(4)  # the width
    (tmp_path / "image.bmp").write_bytes(content)
    with pytest.raises(UserError, match=r"image\.bmp cannot be read as an image"):
        _source(tmp_path, image="image.bmp").read(0)


@pytest.mark.parametrize("form", ["EPS", "GIF", "PPM", "TGA", "ICO", "JPEG2000", "PDF"])
@pytest.mark.parametrize("place", ["image", "mask"])
def test_other_formats_are_refused_whatever_their_name(tmp_path: Path, form: str, place: str) -> None:
    """Pillow would pass an EPS to Ghostscript, which executes its content."""
    for name in ("image.png", "mask.png"):
        (PHOTO if name == "image.png" else Image.fromarray(IDS)).save(tmp_path / name)
    PHOTO.save(tmp_path / f"{place}.png", form)
    with pytest.raises(UserError, match=rf"{place}\.png cannot be read as an image \(not one of PNG, JPEG, TIFF,"):
        _source(tmp_path).read(0)


@pytest.mark.parametrize("place", ["image", "mask"])
def test_special_files_are_never_opened(tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    for name, kind in (("fifo.png", "a FIFO"), ("zeros.png", "a device")):
        PHOTO.save(tmp_path / "other.png") if place == "mask" else Image.fromarray(IDS).save(tmp_path / "other.png")
        names = (name, "other.png") if place == "image" else ("other.png", name)
        source = FileSource([(tmp_path / names[0], tmp_path / names[1])])
        with pytest.raises(UserError, match=rf"{name} cannot be read as an image \(it is {kind}\): leave it out"):
            source.read(0)


@pytest.mark.parametrize("name", ["large.png", "large.jpg", "large.tif", "large.webp", "large.bmp"])
def test_images_above_the_pixel_limit_are_refused_until_it_is_raised(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    PHOTO.save(tmp_path / name)
    Image.fromarray(IDS).save(tmp_path / "ids.png")
    source = FileSource([(tmp_path / name, tmp_path / "ids.png")])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    refused = "has 4800 pixels, too many .*: if you trust it, set .* FASTFCN_MAX_PIXELS=4800$"
    for read in (lambda: read_image(tmp_path / name, True), lambda: source.image(0), lambda: source.ids(0)):
        with pytest.raises(UserError, match=refused):
            read()
    monkeypatch.setenv("FASTFCN_MAX_PIXELS", "4790")
    with pytest.raises(UserError, match="has 4800 pixels"):
        read_image(tmp_path / name, True)
    monkeypatch.setenv("FASTFCN_MAX_PIXELS", "4800")
    assert read_image(tmp_path / name, True).size == (80, 60)
    assert source.read(0)[0].shape == (60, 80, 3)
    for wrong in ("many", "0", "-1", "1e9"):
        monkeypatch.setenv("FASTFCN_MAX_PIXELS", wrong)
        with pytest.raises(UserError, match=f"FASTFCN_MAX_PIXELS={wrong}: give the largest"):
            source.read(0)


def test_an_image_that_does_not_fit_into_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        raise MemoryError

    PHOTO.save(tmp_path / "image.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(UserError, match=r"image\.png does not fit into memory: shrink it, or leave it out"):
        read_image(tmp_path / "image.png", True)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA", "CMYK", "I;16", "HSV", "YCbCr"])
def test_a_pil_image_has_the_pixels_of_its_file(tmp_path: Path, mode: str) -> None:
    wide = Image.fromarray(GRAY.astype(np.uint16) * 257)
    image = wide if mode == "I;16" else PHOTO.convert(mode)
    if mode == "P":
        image.info["transparency"] = 3
    if mode in ("HSV", "YCbCr"):
        expected = np.asarray(image.convert("RGB"))
    else:
        image.save(tmp_path / "image.tif" if mode == "CMYK" else tmp_path / "image.png")
        expected = rgb_pixels(next(tmp_path.iterdir()))
    assert np.array_equal(rgb_pixels(image), expected)
    assert image.info == ({"transparency": 3} if mode == "P" else {})
    assert np.array_equal(rgb_pixels(np.asarray(image)), IMAGE) if mode == "RGB" else True


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (IMAGE.astype(np.uint16) * 257, "uint16"),
        (IMAGE.astype(np.int64), "int64"),
        (IMAGE > 3, "bool"),
        (IMAGE[..., :2], r"and shape \(60, 80, 2\)"),
        (IMAGE[0, :, 0], r"and shape \(80,\)"),
        (IMAGE.astype(complex), "complex128"),
        (IMAGE[None], r"and shape \(1, 60, 80, 3\)"),
        (torch.from_numpy(IMAGE.copy()), r"a Tensor of torch\.uint8"),
        (torch.zeros(3, 8, 8), "a Tensor"),
        (IMAGE.tolist(), "a list:"),
        (None, "a NoneType:"),
    ],
)
def test_other_types_of_images_are_refused(image: Any, what: str) -> None:
    with pytest.raises(UserError, match=rf"the image is .*{what}.*give a uint8 RGB array of shape \(H, W, 3\)"):
        rgb_pixels(image)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (IMAGE / 255.0, IMAGE),
        ((IMAGE / 255).astype(np.float16), IMAGE),
        (IMAGE.transpose(2, 0, 1), IMAGE),
        ((IMAGE / 255).astype(np.float32).transpose(2, 0, 1), IMAGE),
        (np.dstack([IMAGE, IMAGE[..., :1]]), IMAGE),
        (np.dstack([IMAGE, IMAGE[..., :1]]).transpose(2, 0, 1), IMAGE),
        (IMAGE[..., 0], IMAGE[..., [0, 0, 0]]),
        (IMAGE[..., :1] / 255, IMAGE[..., [0, 0, 0]]),
        (IMAGE[None, ..., 1], IMAGE[..., [1, 1, 1]]),
        (IMAGE[:3], IMAGE[:3]),
        (IMAGE[:, :3], IMAGE[:, :3]),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_arrays_of_several_forms_are_the_same_pixels(image: np.ndarray, expected: np.ndarray) -> None:
    pixels = rgb_pixels(image)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize(
    ("image", "values"),
    [
        (IMAGE.astype(np.float32), "from [0-9]+ to [0-9]+"),
        ((IMAGE / 255 - 0.45) / 0.22, "from -[0-9.]+ to [0-9.]+"),
        (np.full((4, 5, 3), np.nan), "from nan to nan"),
    ],
)
def test_floats_of_another_range_are_refused(image: np.ndarray, values: str) -> None:
    with pytest.raises(UserError, match=rf"^the image has floats {values}: scale them to 0 to 1, without normalising"):
        rgb_pixels(image)


@pytest.mark.parametrize("image", [IMAGE[:0], IMAGE[:, :0], Image.new("RGB", (0, 4))])
def test_an_empty_image_is_refused(image: Any) -> None:
    with pytest.raises(UserError, match="the image is empty"):
        rgb_pixels(image)


def test_a_pil_image_with_32_bits_or_of_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for mode in ("I", "F"):
        with pytest.raises(UserError, match="the image has 32 bits a channel"):
            rgb_pixels(PHOTO.convert(mode))
    PHOTO.save(tmp_path / "image.png")
    (tmp_path / "image.png").write_bytes((tmp_path / "image.png").read_bytes()[:900])
    with Image.open(tmp_path / "image.png") as damaged, pytest.raises(UserError, match="the image cannot be read"):
        rgb_pixels(damaged)
