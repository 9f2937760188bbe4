"""COCO's JSON with mistakes: the right masks, or one line that names file and remedy, and nothing half written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.prepare.annotations.output import OUTPUT
from tests.fakes.annotations import NAMES, coco, write_coco
from tests.tools.prepare.annotations.test_formats import GOLDEN, mask, run

Change = Callable[[dict[str, Any]], Any]
FILE = "annotations/instances.json"


def _changed(root: Path, change: Change) -> None:
    write_coco(root, "polygon")
    content = coco("polygon")
    change(content)
    (root / FILE).write_text(json.dumps(content))


def _set(*place: Any) -> Change:
    """Return the function that sets a value: keys and indices, then the value."""

    def change(content: Any) -> None:
        *path, last, value = place
        for key in path:
            content = content[key]
        content[last] = value

    return change


def refused(root: Path, line: str, *overrides: str) -> None:
    """Run `prepare`, which must end in one `line` and leave nothing behind."""
    before = sorted(root.rglob("*"))
    with pytest.raises(UserError, match=line) as caught:
        run(root, *overrides)
    assert "\n" not in str(caught.value)
    assert ":" in str(caught.value)
    assert sorted(root.rglob("*")) == before


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (_set("images", 5), r"instances\.json is not COCO JSON \(.*\): repair it, or export it again"),
        (_set("images", [1]), r"instances\.json is not COCO JSON"),
        (_set("images", []), r"not COCO JSON \(annotation 1: the file lists no image 10\)"),
        (_set("annotations", [3]), r"instances\.json is not COCO JSON"),
        (_set("annotations", {}), r"instances\.json annotates no region: label some"),
        (_set("categories", [{"id": 2}]), r"it lacks 'name'"),
        (_set("categories", [{"id": 2, "name": "${oc.env:HOME}"}]), r"the label '\$\{oc\.env:HOME\}' is no name"),
        (_set("categories", 1, "id", 2), r"the category id 2 is both cat and dog"),
        (_set("categories", 1, "name", " "), r"the label ' ' is no name"),
        (_set("annotations", 0, "category_id", 77), r"annotation 1: the file lists no category 77"),
        (_set("annotations", 0, "category_id", []), r"annotation 1: .*unhashable"),
        (_set("annotations", 0, "image_id", 77), r"annotation 1: the file lists no image 77"),
        (_set("annotations", 0, "segmentation", [[1, 2, 3]]), r"annotation 1: a polygon of 3 numbers, not of pairs"),
        (_set("annotations", 0, "segmentation", [[1, NAN, 3, 4]]), r"annotation 1: the coordinate nan is no position"),
        (_set("annotations", 0, "segmentation", [[1, INFINITE, 3, 4]]), r"annotation 1: the coordinate inf is no pos"),
        (_set("annotations", 0, "segmentation", [[1, 2, 3, -1e300]]), r"the coordinate -1e\+300 is no position"),
        (
            _set("annotations", 0, "segmentation", [["a", 2, 3, 4]]),
            r"annotation 1: a polygon whose corners are no pairs of numbers",
        ),
        (_set("annotations", 0, "segmentation", {"counts": [9]}), r"annotation 1 lacks 'size'"),
        (
            _set("annotations", 0, "segmentation", {"counts": [1, 2], "size": [14, 20]}),
            r"instances\.json has an annotation of first\.png that cannot be drawn \(runs of 3 pixels for 20x14\)",
        ),
        (
            _set("annotations", 0, "segmentation", {"counts": [280], "size": [20, 14]}),
            r"first\.png that cannot be drawn \(run lengths for 14x20 in an image of 20x14\): repair it",
        ),
        (_set("annotations", 0, "segmentation", {"counts": "", "size": [14, 20]}), r"cannot be drawn"),
        (_set("annotations", 0, "segmentation", {"counts": "\x00~~", "size": [14, 20]}), r"cannot be drawn"),
        (_set("annotations", 0, "segmentation", {"counts": ["1"], "size": [14, 20]}), r"cannot be drawn"),
        (_set("annotations", 0, "segmentation", {"counts": [-5, 285], "size": [14, 20]}), r"cannot be drawn"),
        (
            _set("images", 0, "width", 40),
            r"instances\.json states the size 40x14 for .*/first\.png, which is 20x14: re",
        ),
        (_set("images", 0, "width", -20), r"image 10: the size -20x14 is no size of an image"),
        (_set("images", 0, "width", "20"), r"image 10: the size 20x14 is no size"),
        (_set("images", 0, "id", 11), r"image 11: the id occurs twice"),
        (_set("images", 0, "file_name", NAMES[1]), r"second photo\.jpg is annotated twice, in .*: remove one"),
        (_set("images", 0, "file_name", "fifth.png"), r"names the image 'fifth\.png', which is not in .*: add it, or"),
        (_set("images", 0, "file_name", "../../secret.png"), r"'\.\./\.\./secret\.png' outside data\.root=.*: move it"),
        (_set("images", 0, "file_name", "..\\..\\first.png"), r"outside data\.root="),
        (_set("images", 0, "file_name", ""), r"gives no name of an image, but ''"),
        (_set("images", 0, "file_name", 7), r"gives no name of an image, but 7"),
    ],
)
def test_a_mistake_is_one_line(change: Change, line: str, tmp_path: Path) -> None:
    _changed(tmp_path, change)
    refused(tmp_path, line)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", r"instances\.json is not JSON \(it is empty\): export it again, or leave it out"),
        (b"\x89PNG\r\n\x1a\n\0", r"instances\.json is not JSON"),
        (b'{"images": [', r"instances\.json is not JSON \(Expecting value: line 1"),
        (b"[" * 100_000, r"instances\.json is not JSON"),
        ("{'name': 'Köln'}".encode("latin-1"), r"instances\.json is not JSON"),
        (b"{}", r"has no annotation file \(.*instances\.json is none\): export one as coco, labelme"),
        (b"[]", r"has no annotation file"),
        (b"null", r"has no annotation file"),
        (b'{"images": [], "annotations": [], "categories": []}', r"instances\.json lists no image: export the"),
    ],
)
def test_a_file_of_something_else_is_one_line(content: bytes, line: str, tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / FILE).write_bytes(content)
    refused(tmp_path, line)
    if content.startswith((b"{}", b"[]", b"null")):
        refused(tmp_path, r"instances\.json is not COCO JSON", "prepare.format=coco")


@pytest.mark.parametrize(
    "change",
    [
        _set("images", 0, "file_name", "C:\\Users\\me\\images\\first.png"),
        _set("images", 0, "file_name", "images\\first.png"),
        _set("images", 0, "file_name", "../images/first.png"),
        _set("images", 0, "file_name", "/home/me/first.png"),
        _set("images", 0, "file_name", "./images/first.png"),
        _set("images", 2, "file_name", "drittes fu\u0308r Ω.png"),
        _set("images", 0, "width", None),
        _set("categories", 0, "name", " cat\t"),
        _set("annotations", 0, "id", None),
        lambda content: content["images"][0].update(width=20.0, height=None, extra={}),
        lambda content: content["categories"].append({"id": 0, "name": "animals", "supercategory": "none"}),
        lambda content: content["categories"].append(content["categories"][0]),
        lambda content: content["annotations"].append({**content["annotations"][0], "segmentation": [[1, 1, 2, 2]]}),
        lambda content: content["annotations"].append({**content["annotations"][0], "segmentation": []}),
    ],
)
def test_what_is_unusual_gives_the_same_masks(change: Change, tmp_path: Path) -> None:
    """Paths of Windows and of other machines, decomposed accents, no sizes, Roboflow's parent, boxes, thin lines."""
    _changed(tmp_path, change)
    if "animals" in (tmp_path / FILE).read_text():
        text = (tmp_path / FILE).read_text().replace('"supercategory": "animal"', '"supercategory": "animals"')
        (tmp_path / FILE).write_text(text)
    run(tmp_path)
    assert {name: mask(tmp_path, name) for name in NAMES} == GOLDEN["masks"]


def test_two_ids_of_one_name_are_one_class(tmp_path: Path) -> None:
    _changed(tmp_path, lambda content: content["categories"].append({"id": 99, "name": "cat"}))
    run(tmp_path)
    assert (tmp_path / OUTPUT / "classes.txt").read_text() == "background\ncat\ndog\nbird\n"


def test_crowds_are_their_class_or_ignored(tmp_path: Path) -> None:
    write_coco(tmp_path)
    run(tmp_path, "prepare.crowd=false")
    assert mask(tmp_path, "first.png") == re.sub("b", ".", GOLDEN["masks"]["first.png"])


def test_an_image_without_annotations_is_background(tmp_path: Path) -> None:
    _changed(tmp_path, lambda content: [a.update(image_id=11) for a in content["annotations"] if a["image_id"] == 10])
    run(tmp_path)
    assert set(mask(tmp_path, "first.png")) == {"-", "\n"}
    run(tmp_path, "prepare.background=null")
    assert (tmp_path / OUTPUT / "classes.txt").read_text() == "cat\ndog\nbird\n"
    assert not np.asarray(Image.open(tmp_path / OUTPUT / "masks" / "images" / "first.png")).min() < 255


@pytest.mark.slow
def test_labels_are_ordered_and_ignored_as_the_user_says(tmp_path: Path) -> None:
    write_coco(tmp_path)
    run(tmp_path, "data.classes=[dog,background,bird,cat]")
    assert np.asarray(Image.open(tmp_path / OUTPUT / "masks" / "images" / "first.png"))[2, :3].tolist() == [1, 1, 3]
    run(tmp_path, "prepare.ignore=[dog]")
    assert mask(tmp_path, "first.png") == re.sub("d", ".", GOLDEN["masks"]["first.png"])
    before = mask(tmp_path, "first.png")
    for keys, line in (
        (
            ["data.classes=[background,dgo,bird,cat]"],
            r"data\.classes lacks dog, .*did you mean dgo\?.*: add it, or set",
        ),
        (["data.classes=[cat,dog,bird]"], r"data\.classes lacks background, .*prepare\.background=null"),
        (["data.classes=cat"], r"data\.classes=cat: give a list of names"),
        (["prepare.background=null", "prepare.ignore=[dog,cat]"], r"has 1 classes, bird: use 2 to 255"),
        (["prepare.format=cocoa"], r"prepare\.format=cocoa: no such format; did you mean coco\?"),
        (["prepare.on_top=top"], r"prepare\.on_top=top: no such rule; give smaller, later or null"),
        (["prepare.ignore=dog"], r"prepare\.ignore=dog: give a list of labels"),
        (["prepare.background=0"], r"prepare\.background=0: give the name of a class"),
        (["prepare.val_share=2"], r"prepare\.val_share=2: give a share between 0 and 1"),
        (["prepare.files='*.xml'"], r"has no annotation file"),
    ):
        refused(tmp_path, line, *keys)
        assert mask(tmp_path, "first.png") == before  # of the last run that succeeded


def test_the_later_annotation_may_be_on_top(tmp_path: Path) -> None:
    write_coco(tmp_path)
    run(tmp_path, "prepare.on_top=later")
    assert "ddddd" in mask(tmp_path, "first.png").splitlines()[8]


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / OUTPUT).mkdir()
    (tmp_path / OUTPUT / "report.txt").write_text("mine")
    refused(tmp_path, rf"{OUTPUT} exists and was not written by this command: rename or remove it")


def test_images_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """By their folders, also if they differ in the extension alone."""
    write_coco(tmp_path)
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        shutil.copy(tmp_path / "images" / "first.png", tmp_path / folder)
    refused(tmp_path, r"names the image 'first\.png', which may be .*/first\.png.*: give its path in the file")
    content = json.loads((tmp_path / FILE).read_text())
    content["images"][0]["file_name"] = "val/first.png"
    content["images"][1]["file_name"] = "images/first.png"
    (tmp_path / FILE).write_text(json.dumps(content))
    run(tmp_path)
    assert (tmp_path / OUTPUT / "masks" / "val" / "first.png").is_file()
