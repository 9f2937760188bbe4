"""Pairs of image and mask: by name in folders, by the lines of a list; whatever has no partner is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastfcn_pl.contracts import UserError
from fastfcn_pl.data.pairs import in_folders, in_list


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _found(root: Path, suffix: str = "", images: str = "images", masks: str = "masks") -> list[tuple[str, str]]:
    return _names(root, in_folders(root / images, root / masks, suffix))


def _names(root: Path, pairs: list[tuple[Path, Path]]) -> list[tuple[str, str]]:
    return [(image.relative_to(root).as_posix(), mask.relative_to(root).as_posix()) for image, mask in pairs]


def _list(root: Path, *lines: str, images: str = "images", suffix: str = "") -> list[tuple[str, str]]:
    (root / "list.txt").write_text("\n".join(lines) + "\n")
    return _names(root, in_list(root / "list.txt", root, root / images, root / "masks", suffix))


def test_names_pair_whatever_the_extensions_in_order(tmp_path: Path) -> None:
    _touch(tmp_path, "images/b.JPG", "images/a.webp", "masks/b.png", "masks/a.tif", "masks/readme.txt", "images/.x.jpg")
    assert _found(tmp_path) == [("images/a.webp", "masks/a.tif"), ("images/b.JPG", "masks/b.png")]


def test_subfolders_pair_by_their_paths(tmp_path: Path) -> None:
    _touch(tmp_path, "images/one/0.jpg", "images/two/0.jpg", "masks/one/0.png", "masks/two/0.png")
    _touch(tmp_path, "images/.ipynb_checkpoints/0.jpg")
    assert _found(tmp_path) == [("images/one/0.jpg", "masks/one/0.png"), ("images/two/0.jpg", "masks/two/0.png")]


def test_a_suffix_tells_masks_from_other_files(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.1.jpg", "masks/a.1_labelIds.png", "masks/a.1_color.png")
    assert _found(tmp_path, "_labelIds") == [("images/a.1.jpg", "masks/a.1_labelIds.png")]


def test_images_and_masks_may_share_a_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "all/a.png", "all/a_mask.png", "all/deep/b.png", "all/deep/b_mask.png")
    expected = [("all/a.png", "all/a_mask.png"), ("all/deep/b.png", "all/deep/b_mask.png")]
    assert _found(tmp_path, "_mask", images="all", masks="all") == expected


def test_an_image_without_a_mask_is_an_error(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"images/{i}.jpg" for i in range(6)), "masks/0.png")
    line = r"images/1\.jpg, .*images/2\.jpg, .*images/3\.jpg and 2 more has no mask of that name in .*/masks: .* is ''$"
    with pytest.raises(UserError, match=line):
        _found(tmp_path)


def test_a_mask_without_an_image_is_an_error(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.jpg", "masks/a_m.png", "masks/b_m.png")
    with pytest.raises(UserError, match=r"^\S*masks/b_m\.png has no image of that name in \S*/images: .* is '_m'$"):
        _found(tmp_path, "_m")


def test_two_images_of_one_name_are_an_error(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.jpg", "images/a.png", "masks/a.png")
    with pytest.raises(UserError, match=r"images/a\.jpg and \S*images/a\.png have one name: rename one"):
        _found(tmp_path)


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.jpg", "masks/a.gif")
    with pytest.raises(UserError, match=r"/nowhere is not a folder: make it, or name another in data\.splits"):
        _found(tmp_path, masks="nowhere")
    with pytest.raises(UserError, match=r"/masks holds no file of a known kind \(\.png, .*\.bmp\): name another"):
        _found(tmp_path)
    with pytest.raises(UserError, match=r"/masks holds no file whose name ends in _mask of a known kind"):
        _found(tmp_path, "_mask")


def test_a_list_takes_some_of_the_folders_pairs(tmp_path: Path) -> None:
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
        ("b", r"/images holds no b: restore it"),
        ("unlabelled.jpg", r"/masks holds no unlabelled: restore it"),
        ("images/a.jpg masks/b.png", r"\S*/masks/b\.png is missing: restore it, or take the line out"),
        ("a b c", "give one name, or an image and its mask, not 3 files"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    _touch(tmp_path, "images/a.jpg", "images/unlabelled.jpg", "masks/a.png")
    with pytest.raises(UserError, match=rf"list\.txt, line 3: .*{message}"):
        _list(tmp_path, "a", "", line)


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\x89PNG\xff")
    for name in ("list.txt", "nowhere.txt", "."):
        with pytest.raises(UserError, match=r"cannot be read as a list \(.*\): name another in data\.splits"):
            in_list(tmp_path / name, tmp_path, tmp_path, tmp_path, "")
