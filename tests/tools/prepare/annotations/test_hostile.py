"""Mistakes in the other formats: the right masks, or one line that names file and remedy, and nothing half written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastfcn_pl.tools.prepare.annotations import label_studio
from fastfcn_pl.tools.prepare.annotations.output import OUTPUT
from tests.fakes.annotations import NAMES, WRITERS, brush, write_coco, write_images, write_labelme
from tests.tools.prepare.annotations.test_formats import GOLDEN, mask, run
from tests.tools.prepare.annotations.test_hostile_coco import refused

FILES = {
    "labelme": "images/first.json",
    "cvat": "annotations.xml",
    "cvat masks": "labelmap.txt",
    "roboflow": "train/_annotations.coco.json",
    "roboflow masks": "train/_classes.csv",
    "label studio": "project-1.json",
    "cityscapes": "gtFine/train/zoo/first_gtFine_polygons.json",
}
"""A file of annotations in each format."""


def _edited(root: Path, format: str, change: Callable[[Any], Any]) -> None:
    """Write a format and change the content of its file: JSON, or the text of another."""
    WRITERS[format](root)
    path = root / FILES[format]
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    else:
        path.write_text(change(path.read_text()))


def _shape(**keys: Any) -> Callable[[Any], Any]:
    return lambda content: content["shapes"][0].update(keys)


def _result(index: int, **keys: Any) -> Callable[[Any], Any]:
    return lambda content: content[0]["annotations"][0]["result"][index].update(keys)


def _value(index: int, **keys: Any) -> Callable[[Any], Any]:
    return lambda content: content[0]["annotations"][0]["result"][index]["value"].update(keys)


def _swap(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("format", "change", "line"),
    [
        ("labelme", _shape(points=[[1, 2], [3]]), r"first\.json is not labelme's JSON \(shape 1: "),
        ("labelme", _shape(points=[[1, float("nan")], [3, 4]]), r"shape 1: the coordinate nan is no position"),
        ("labelme", _shape(points=[]), r"shape 1: a polygon of 0 numbers"),
        ("labelme", _shape(points=None), r"first\.json is not labelme's JSON"),
        ("labelme", _shape(label=None), r"shape 1: the label None is no name"),
        ("labelme", _shape(label="two\nlines"), r"shape 1: the label 'two\\nlines' is no name"),
        ("labelme", _shape(shape_type="rectangle"), r"shape 1: too many values"),
        (
            "labelme",
            lambda content: content["shapes"][2].update(mask="%%%"),
            r"first\.png that cannot be drawn \(its mask is no PNG\)",
        ),
        ("labelme", lambda content: content["shapes"][2].update(mask="aGVsbG8="), r"its mask is no PNG"),
        ("labelme", lambda content: content["shapes"][2].pop("mask"), r"shape 3 lacks 'mask'"),
        ("labelme", lambda content: content.update(shapes=7), r"first\.json is not labelme's JSON"),
        ("labelme", lambda content: content.update(imagePath="..\\..\\up.png"), r"outside data\.root="),
        (
            "labelme",
            lambda content: content.update(imagePath=NAMES[3]),
            r"4\.png is annotated twice, in .*: remove one",
        ),
        (
            "labelme",
            lambda content: content.update(imageHeight=20, imageWidth=14),
            r"states the size 14x20 for .*20x14",
        ),
        ("cvat", lambda text: "", r"annotations\.xml is not XML \(no element found"),
        ("cvat", lambda text: text[:500], r"annotations\.xml is not XML"),
        ("cvat", _swap("annotations>", "annotation>"), r"annotations\.xml is not XML \(mismatched tag"),
        (
            "cvat",
            _swap("<image ", "<track/><image "),
            r"annotations\.xml is CVAT for video: export the task as CVAT for",
        ),
        (
            "cvat",
            _swap('points="2.25,2.25', 'points="2.25'),
            r"annotations\.xml is not CVAT's XML for images \(image 0: a p",
        ),
        ("cvat", _swap('points="2.25,2.25', 'points="2.25,inf'), r"image 0: the coordinate inf is no position"),
        ("cvat", _swap('points="2.25,2.25', 'points="x,y'), r"image 0: a polygon whose corners are no pairs"),
        ("cvat", _swap('height="14"', 'height="tall"'), r"image 0: could not convert string to float"),
        ("cvat", _swap('height="14"', 'height="15"'), r"annotations\.xml states the size 20x15 for .*first\.png"),
        ("cvat", _swap(' name="first.png"', ""), r"image 0 lacks 'name'"),
        ("cvat", _swap('name="first.png"', 'name="4.png"'), r"4\.png is annotated twice"),
        ("cvat", _swap('rle="', 'rle="9'), r"first\.png that cannot be drawn \(runs of \d+ pixels for"),
        ("cvat", _swap('rle="', 'rle="a'), r"image 0: invalid literal"),
        ("cvat masks", _swap("250,50,83", "250,50"), r"labelmap\.txt is not CVAT's labelmap\.txt \(not enough values"),
        (
            "cvat masks",
            _swap("250,50,83", "250,50,84"),
            r"\.png has the colour #fa3253, which .*/labelmap\.txt does not name",
        ),
        ("cvat masks", lambda text: "# nothing\n", r"labelmap\.txt names no label"),
        ("cvat masks", lambda text: "\0\0", r"labelmap\.txt cannot be read as a list"),
        (
            "roboflow masks",
            _swap("3, bird", "4, bird"),
            r"_mask\.png has the id 3, which .*/_classes\.csv does not name",
        ),
        (
            "roboflow masks",
            _swap("3, bird", "three, bird"),
            r"_classes\.csv is not Roboflow's _classes\.csv \(invalid liter",
        ),
        ("roboflow masks", _swap("3, bird", "3"), r"_classes\.csv is not Roboflow's"),
        ("roboflow masks", lambda text: "", r"_classes\.csv names no label"),
        ("label studio", lambda content: content.append(5), r"has no annotation file \(.*project-1\.json is none\)"),
        (
            "label studio",
            lambda content: content[0].update(data={"image": "page.html"}),
            r"task 0: its data names no file of",
        ),
        ("label studio", lambda content: content[0].update(data={"image": "../../up.png"}), r"outside data\.root="),
        (
            "label studio",
            lambda content: content[0].pop("data"),
            r"is Label Studio's JSON-MIN, which lacks sizes and masks",
        ),
        ("label studio", _result(0, original_width=28), r"states the size 28x14 for .*first\.png"),
        ("label studio", _result(0, image_rotation=90), r"task 0: the image was rotated while it was labelled"),
        ("label studio", _value(0, points=[[1, float("inf")]]), r"task 0: the coordinate inf is no position"),
        ("label studio", _value(0, points=[[1]]), r"task 0: a polygon of 1 numbers"),
        (
            "label studio",
            _value(0, polygonlabels=["cat", "dog"]),
            r"task 0: a region has the labels cat and dog: give each one",
        ),
        ("label studio", _value(2, rle=[]), r"first\.png that cannot be drawn \(its brush mask ends"),
        ("label studio", _value(2, rle=[300]), r"project-1\.json is not Label Studio's JSON \(task 0: "),
        (
            "label studio",
            _value(2, rle=brush(np.ones((3, 3), bool))),
            r"cannot be drawn \(a brush mask of 36 values for 20x14 pixels",
        ),
        (
            "label studio",
            _value(2, rle=brush(np.ones((14, 20), bool))[:9]),
            r"first\.png that cannot be drawn \(its brush mask ends",
        ),
        ("cityscapes", lambda content: content["objects"][0].pop("label"), r"object 1 lacks 'label'"),
        (
            "cityscapes",
            lambda content: content["objects"][0].update(polygon=[[1, 2, 3]]),
            r"object 1: a polygon of 3 numbers",
        ),
        ("cityscapes", lambda content: content.update(imgWidth=21), r"states the size 21x14 for .*_leftImg8bit\.png"),
        ("cityscapes", lambda content: content.update(objects=None), r"is not the JSON of Cityscapes' polygons"),
    ],
)
def test_a_mistake_is_one_line(format: str, change: Callable[[Any], Any], line: str, tmp_path: Path) -> None:
    _edited(tmp_path, format, change)
    refused(tmp_path, line)


@pytest.mark.parametrize("format", FILES)
def test_an_empty_file_is_one_line(format: str, tmp_path: Path) -> None:
    WRITERS[format](tmp_path)
    (tmp_path / FILES[format]).write_bytes(b"")
    refused(tmp_path, rf"{Path(FILES[format]).name} (is not (JSON|XML)|names no label)")


@pytest.mark.parametrize("format", FILES)
def test_an_image_that_is_missing_is_one_line(format: str, tmp_path: Path) -> None:
    WRITERS[format](tmp_path)
    for path in tmp_path.rglob("*"):
        if path.stem.startswith("4") and path.parent.name != "SegmentationClass" and "mask" not in path.stem:
            path.unlink() if path.suffix == ".png" else None
    refused(tmp_path, rf"{Path(FILES[format]).suffix} names the image '.*4.*', which is not in {tmp_path}: add it, or")


@pytest.mark.parametrize("format", FILES)
def test_an_image_of_another_size_is_one_line(format: str, tmp_path: Path) -> None:
    WRITERS[format](tmp_path)
    (image,) = [
        path
        for path in tmp_path.rglob("4*.png")
        if not path.stem.endswith("_mask") and not path.parent.name.startswith("Segmentation")
    ]
    Image.new("RGB", (40, 28)).save(image)
    refused(tmp_path, r"(states the size 20x14 for .*, which is 40x28: restore|does not have the size of its image)")


def test_files_of_two_formats_are_not_mixed(tmp_path: Path) -> None:
    write_coco(tmp_path)
    write_labelme(tmp_path)
    refused(
        tmp_path, r"instances\.json is in the format coco and .*\.json in labelme: choose with prepare\.files='<glob>'"
    )
    run(tmp_path, "prepare.files='annotations/*'")
    assert mask(tmp_path, "first.png") == GOLDEN["masks"]["first.png"]
    (tmp_path / "images" / "package.json").write_text('{"name": "viewer"}')
    run(tmp_path, "prepare.files='images/*'")
    assert mask(tmp_path, "first.png") == GOLDEN["masks"]["first.png"]


def test_labelme_has_labels_for_the_background_and_for_what_is_ignored(tmp_path: Path) -> None:
    write_labelme(tmp_path)
    path = tmp_path / "images" / "first.json"
    text = (
        path.read_text()
        .replace('"dog", "points": [[9', '"__ignore__", "points": [[9')
        .replace('"bird"', '"_background_"')
    )
    path.write_text(text)
    run(tmp_path)
    expected = GOLDEN["masks"]["first.png"].replace("d", ".").replace("b", "-")
    assert mask(tmp_path, "first.png") == expected
    assert (tmp_path / OUTPUT / "classes.txt").read_text() == "background\nbird\ncat\ndog\n"


def test_splits_are_those_of_files_folders_and_subsets(tmp_path: Path) -> None:
    for folder, names in (("train", NAMES[:2]), ("valid", NAMES[2:3]), ("test", NAMES[3:])):
        write_labelme(tmp_path / "all")
        (tmp_path / folder).mkdir()
        for path in (tmp_path / "all" / "images").iterdir():
            if path.stem in [Path(name).stem for name in names]:
                path.rename(tmp_path / folder / path.name)
    for path in (tmp_path / "all" / "images").iterdir():
        path.unlink()
    run(tmp_path)
    assert (
        tmp_path / OUTPUT / "val.txt"
    ).read_text() == f"valid/{NAMES[2]}\t{OUTPUT}/masks/valid/{Path(NAMES[2]).stem}.png\n"
    assert (tmp_path / OUTPUT / "test.txt").read_text().startswith("test/4.png\t")
    assert len((tmp_path / OUTPUT / "train.txt").read_text().splitlines()) == 2


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    write_labelme(tmp_path)
    for name in NAMES[1:]:
        (tmp_path / "images" / f"{Path(name).stem}.json").unlink()
    refused(tmp_path, r"first\.json leaves no image for training: annotate at least two")


def test_rectangles_circles_and_ellipses_are_regions(tmp_path: Path) -> None:
    """CVAT's and Label Studio's turn clockwise, the one about its centre, the other about its corner."""
    write_images(tmp_path, NAMES[:2])
    xml = (
        '<annotations><image id="0" name="first.png" width="20" height="14">'
        '<box label="box" xtl="6" ytl="3" xbr="14" ybr="7" rotation="90.0"/>'
        '<ellipse label="ellipse" cx="4" cy="10" rx="1" ry="3" rotation="90"/></image>'
        '<image id="1" name="second photo.jpg" width="20" height="14"/></annotations>'
    )
    (tmp_path / "a.xml").write_text(xml)
    run(tmp_path, "prepare.val_share=0.5")
    ids = np.asarray(Image.open(tmp_path / OUTPUT / "masks" / "first.png"))
    y, x = np.mgrid[:14, :20] + 0.5
    expected = np.where((np.abs(x - 10) < 2) & (np.abs(y - 5) < 4), 1, 0)
    expected[(x - 4) ** 2 / 9 + (y - 10) ** 2 < 1] = 2
    assert np.array_equal(ids, expected)
    values = {"x": 50, "y": 50, "width": 20, "height": 50, "rotation": 90}
    ring = label_studio._region("rectangle", values, 14, 20).rings[0]  # type: ignore[attr-defined]
    assert np.allclose(ring, [(10, 7), (10, 11), (3, 11), (3, 7)])


@pytest.mark.slow
def test_an_entity_bomb_is_one_line(tmp_path: Path) -> None:
    write_images(tmp_path)
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 30}">' for i in range(9))
    (tmp_path / "a.xml").write_text(f'<!DOCTYPE a [<!ENTITY e0 "boom">{entities}]><annotations>&e9;</annotations>')
    refused(tmp_path, r"a\.xml is not XML \(")


def test_the_pixel_limit_is_that_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_labelme(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(tmp_path, r"\.png has 280 pixels, too many .*data\.max_pixels .*=280$")
    run(tmp_path, "data.max_pixels=280")
    monkeypatch.undo()
    assert mask(tmp_path, "first.png") == GOLDEN["masks"]["first.png"]
    (option,) = (tmp_path / OUTPUT / "data").iterdir()
    assert "max_pixels: 280\n" in option.read_text()


def test_photographs_are_labelled_as_their_exif_orientation_shows_them(tmp_path: Path) -> None:
    write_labelme(tmp_path)
    path = tmp_path / "images" / NAMES[1]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).rotate(90, expand=True).save(path, exif=exif)
    run(tmp_path)
    assert mask(tmp_path, NAMES[1]) == GOLDEN["masks"][NAMES[1]]
