"""Pairing of images and masks by name in folders or by a list; a file without a partner raises one line."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.pairs import pair_folders, pair_list


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _found(root: Path, suffix: str = "", images: str = "images", masks: str = "masks") -> list[tuple[str, str]]:
    return _names(root, pair_folders(root / images, root / masks, suffix))


def _names(root: Path, pairs: list[tuple[Path, Path]]) -> list[tuple[str, str]]:
    return [(image.relative_to(root).as_posix(), mask.relative_to(root).as_posix()) for image, mask in pairs]


def _list(root: Path, *lines: str, images: str = "images", suffix: str = "") -> list[tuple[str, str]]:
    (root / "list.txt").write_text("\n".join(lines) + "\n")
    return _names(root, pair_list(root / "list.txt", root, root / images, root / "masks", suffix))


def test_files_pair_by_name_whatever_their_extensions(tmp_path: Path) -> None:
    _touch(tmp_path, "images/b.JPG", "images/a.webp", "masks/b.png", "masks/a.tif", "masks/readme.txt", "images/.x.jpg")
    assert _found(tmp_path) == [("images/a.webp", "masks/a.tif"), ("images/b.JPG", "masks/b.png")]


def test_subfolders_pair_by_their_paths(tmp_path: Path) -> None:
    _touch(tmp_path, "images/one/0.jpg", "images/two/0.jpg", "masks/one/0.png", "masks/two/0.png")
    _touch(tmp_path, "images/.ipynb_checkpoints/0.jpg")
    assert _found(tmp_path) == [("images/one/0.jpg", "masks/one/0.png"), ("images/two/0.jpg", "masks/two/0.png")]


def test_a_suffix_marks_masks(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.1.jpg", "masks/a.1_labelIds.png", "masks/a.1_color.png")
    assert _found(tmp_path, "_labelIds") == [("images/a.1.jpg", "masks/a.1_labelIds.png")]


def test_images_and_masks_may_share_a_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "all/a.png", "all/a_mask.png", "all/deep/b.png", "all/deep/b_mask.png")
    expected = [("all/a.png", "all/a_mask.png"), ("all/deep/b.png", "all/deep/b_mask.png")]
    assert _found(tmp_path, "_mask", images="all", masks="all") == expected


def test_an_image_without_a_mask_is_an_error(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"images/{i}.jpg" for i in range(6)), "masks/0.png")
    line = (
        r"images/1\.jpg, .*images/2\.jpg, .*images/3\.jpg and 2 more has no mask of the same name in .*/masks: "
        r".*data\.mask_suffix=''$"
    )
    with pytest.raises(UserError, match=line):
        _found(tmp_path)


def test_a_mask_without_an_image_is_an_error(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.jpg", "masks/a_m.png", "masks/b_m.png")
    with pytest.raises(
        UserError, match=r"^\S*masks/b_m\.png has no image of the same name in \S*/images: .*data\.mask_suffix='_m'$"
    ):
        _found(tmp_path, "_m")


def test_two_images_of_one_name_are_an_error(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.jpg", "images/a.png", "masks/a.png")
    with pytest.raises(UserError, match=r"images/a\.jpg and \S*images/a\.png have the same name: rename one"):
        _found(tmp_path)


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.jpg", "masks/a.gif")
    with pytest.raises(UserError, match=r"/nowhere is not a folder: create it, or name another in data\.splits"):
        _found(tmp_path, masks="nowhere")
    with pytest.raises(UserError, match=r"/masks has no image file \(\.png, .*\.bmp\): name another"):
        _found(tmp_path)
    with pytest.raises(UserError, match=r"/masks has no image file whose name ends in _mask"):
        _found(tmp_path, "_mask")


def test_a_list_selects_pairs_of_the_folders(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.jpg", "images/d/b.1.jpg", "images/unlabelled.jpg", "masks/a_m.png", "masks/d/b.1_m.png")
    expected = [("images/d/b.1.jpg", "masks/d/b.1_m.png"), ("images/a.jpg", "masks/a_m.png")]
    for lines in (("d/b.1", "a"), ("d/b.1.jpg", "", "./a.jpg  "), ("\ufeffimages/d/b.1.jpg", "images/a.jpg")):
        assert _list(tmp_path, *lines, suffix="_m") == expected, lines


def test_a_list_names_image_and_mask_anywhere_below_the_root(tmp_path: Path) -> None:
    _touch(tmp_path, "x/a.jpg", "y/z.png", "images/c.jpg", "masks/c.png")
    assert _list(tmp_path, "x/a.jpg  y/z.png", images="nowhere") == [("x/a.jpg", "y/z.png")]
    assert _list(tmp_path, "c", "x/a.jpg\ty/z.png") == [("images/c.jpg", "masks/c.png"), ("x/a.jpg", "y/z.png")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b", r"/images has no b: restore it"),
        ("unlabelled.jpg", r"/masks has no unlabelled: restore it"),
        ("images/a.jpg masks/b.png", r"\S*/masks/b\.png is missing: restore it, or remove the line"),
        ("a b c", "give one name, or an image and its mask, not 3 files"),
    ],
)
def test_an_invalid_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    _touch(tmp_path, "images/a.jpg", "images/unlabelled.jpg", "masks/a.png")
    with pytest.raises(UserError, match=rf"list\.txt, line 3: .*{message}"):
        _list(tmp_path, "a", "", line)


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\x89PNG\xff")
    for name in ("list.txt", "nowhere.txt", "."):
        with pytest.raises(UserError, match=r"cannot be read as a list \(.*\): name another in data\.splits"):
            pair_list(tmp_path / name, tmp_path, tmp_path, tmp_path, "")


def _images(root: Path, *names: str) -> None:
    """Write an image of each name, and its mask."""
    _touch(root, *(f"images/{name}.jpg" for name in names), *(f"masks/{name}.png" for name in names))


PAIR = [("images/my photo 0.jpg", "masks/my photo 0.png")]
SPACES = [
    "my photo 0",
    "my photo 0.jpg  ",
    "images/my photo 0.jpg",
    '"my photo 0"',
    "'my photo 0.jpg'",
    "images/my photo 0.jpg masks/my photo 0.png",
    "images/my photo 0.jpg\tmasks/my photo 0.png",
    "\timages/my photo 0.jpg\t\t masks/my photo 0.png\t",
    '"images/my photo 0.jpg" "masks/my photo 0.png"',
    "'images/my photo 0.jpg'\t\"masks/my photo 0.png\"",
    "/images/my photo 0.jpg",
    "/images/my photo 0.jpg\t/masks/my photo 0.png",
    "/images/my photo 0.jpg /masks/my photo 0.png",
    "images\\my photo 0.jpg\tmasks\\my photo 0.png",
    "\\images\\my photo 0.jpg",
    "\ufeffmy photo 0\r\n\r\n",
]


@pytest.mark.parametrize("line", SPACES)
def test_names_may_contain_spaces(tmp_path: Path, line: str) -> None:
    _images(tmp_path, "my photo 0", "my photo 1", "my", "photo")
    assert _list(tmp_path, line) == PAIR


def test_a_whole_path_is_that_path(tmp_path: Path) -> None:
    _images(tmp_path, "a", "b c")
    assert _list(tmp_path, f"{tmp_path}/images/b c.jpg\t{tmp_path}/masks/b c.png", f"{tmp_path}/images/a.jpg") == [
        ("images/b c.jpg", "masks/b c.png"),
        ("images/a.jpg", "masks/a.png"),
    ]


def test_only_newlines_end_a_line(tmp_path: Path) -> None:
    names = ["a\u2028b", "c\x85d", "Screenshot 9.41\u202fAM", "e\u00a0f", "it's"]
    _images(tmp_path, *names)
    assert _list(tmp_path, *names) == [(f"images/{name}.jpg", f"masks/{name}.png") for name in names]


@pytest.mark.parametrize("images", ["NFC", "NFD"])
def test_accents_pair_in_any_normal_form(tmp_path: Path, images: Literal["NFC", "NFD"]) -> None:
    masks: Literal["NFC", "NFD"] = "NFD" if images == "NFC" else "NFC"
    image, mask = (unicodedata.normalize(form, "caf\u00e9/\u00fcber_\u1ed1_m") for form in (images, masks))
    _touch(tmp_path, f"images/{image}.jpg", f"masks/{mask}.png")
    pair = [(f"images/{image}.jpg", f"masks/{mask}.png")]
    assert _found(tmp_path) == pair
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, image)
        assert _list(tmp_path, name) == pair
        assert _list(tmp_path, f"images/{name}.jpg\tmasks/{name}.png") == pair


def test_one_name_in_two_normal_forms_is_an_error(tmp_path: Path) -> None:
    _touch(tmp_path, "images/caf\u00e9.jpg", "images/cafe\u0301.jpg", "masks/caf\u00e9.png")
    with pytest.raises(UserError, match="have the same name: rename one"):
        _found(tmp_path)


def test_a_name_in_another_case_is_hinted_at(tmp_path: Path) -> None:
    _touch(tmp_path, "images/IMG_1.JPG", "masks/img_1.PNG")
    line = r"IMG_1\.JPG has no mask of the same name in \S*/masks \(\S*/img_1\.PNG differs in upper and lower case\)"
    with pytest.raises(UserError, match=line):
        _found(tmp_path)
    with pytest.raises(UserError, match=r"masks has no IMG_1 \(\S*/img_1\.PNG differs in upper and lower case\)"):
        _list(tmp_path, "IMG_1")


def test_links_are_followed_and_loops_and_special_files_are_reported(tmp_path: Path) -> None:
    _images(tmp_path, "a")
    _touch(tmp_path, "more/images/b.jpg", "more/masks/b.png")
    for kind in ("images", "masks"):
        (tmp_path / kind / "linked").symlink_to(tmp_path / "more" / kind)
    (tmp_path / "images" / "again").symlink_to(tmp_path / "images")
    os.mkfifo(tmp_path / "images" / "x.png")
    (tmp_path / "masks" / "folder.png").mkdir()
    expected = [("images/a.jpg", "masks/a.png"), ("images/linked/b.jpg", "masks/linked/b.png")]
    with (
        pytest.warns(UserWarning, match=r"images/again leads back to a folder"),
        pytest.warns(UserWarning, match=r"images/x\.png is a FIFO"),
        pytest.warns(UserWarning, match=r"folder\.png is a folder"),
    ):
        assert _found(tmp_path) == expected


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    _images(tmp_path, "a")
    _touch(tmp_path, "images/._a.jpg", "masks/._a.png", "images/.thumbnails/a.jpg", "images/__MACOSX/._a.jpg")
    _touch(tmp_path, "images/__MACOSX/a.jpg", "masks/@eaDir/a.png")
    assert _found(tmp_path) == [("images/a.jpg", "masks/a.png")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("my\r\n".encode("utf-16"), "it is stored as UTF-16, not as UTF-8: save it as UTF-8"),
        ("my\r\n".encode("utf-16-be"), "it looks like UTF-16: save it as UTF-8"),
        ("my\r\n".encode("utf-32"), "it is stored as UTF-32, not as UTF-8"),
        ("a\ncaf\u00e9\n".encode("latin-1"), "line 2 is not UTF-8, but perhaps Latin-1 or Windows-1252"),
        (bytes(3) + b"a" * 60, "it contains zero bytes"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"list\.txt cannot be read as a list \({words}.*\): name another in data"):
        pair_list(tmp_path / "list.txt", tmp_path, tmp_path, tmp_path, "")


@pytest.mark.parametrize("place", ["a FIFO", "too long", "below a file"])
def test_an_unreadable_list_is_named(tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "a FIFO")
    (tmp_path / "file").touch()
    name = {"too long": "x" * 5000, "below a file": "file/list.txt"}.get(place, place)
    with pytest.raises(UserError, match=r"cannot be read as a list \(.*\): name another in data\.splits"):
        pair_list(tmp_path / name, tmp_path, tmp_path, tmp_path, "")


@pytest.mark.parametrize("line", ["my photo 9", "C:\\data\\my photo 0.jpg", "images/my photo 0.jpg masks/no such.png"])
def test_an_invalid_line_with_spaces_is_named(tmp_path: Path, line: str) -> None:
    _images(tmp_path, "my photo 0")
    with pytest.raises(
        UserError, match=r"list\.txt, line 1: no image of \S*/images has the name '.*': give one name, or"
    ):
        _list(tmp_path, line)
