"""One small annotated set, as each tool exports it: four images of 20x14 with a cat, a dog and a bird."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image

from tests.fakes.archives import run_lengths, run_lengths_as_text

HEIGHT, WIDTH = 14, 20
NAMES = ["first.png", "second photo.jpg", "drittes für Ω.png", "4.png"]
LABELS = ["cat", "dog", "bird"]
CAT = [(2.25, 2.25), (12.25, 2.25), (12.25, 10.25), (2.25, 10.25), (2.25, 4.25), (5.25, 4.25), (5.25, 8.25)]
CAT += [(9.25, 8.25), (9.25, 4.25), (2.25, 4.25)]
"""Corners of a box with a hole, to which a cut leads; it is drawn first, under the smaller dog."""
DOG = [(9.75, 5.25), (17.25, 6.25), (10.75, 12.75)]
BIRD = (13, 8, 17, 12)
"""Left, top, right and bottom of a box, which formats with masks store as one."""


def scene(index: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]], np.ndarray]:
    """Return the cat and the dog of an image, and the mask of its bird: each image is shifted by one more pixel."""
    bird = np.zeros((HEIGHT, WIDTH), bool)
    bird[BIRD[1] : BIRD[3], BIRD[0] - index : BIRD[2] - index] = True
    cat, dog = ([(x - index, y) for x, y in ring] for ring in (CAT, DOG))
    return cat, dog, bird


def write_images(folder: Path, names: list[str] = NAMES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(folder / name)


def coco(kind: str) -> dict[str, Any]:
    """Return COCO's JSON with the bird as polygon, `list` of run lengths, or `text`."""
    categories = [{"id": 3 * i + 2, "name": name, "supercategory": "animal"} for i, name in enumerate(LABELS)]
    images = [{"id": 10 + i, "file_name": n, "height": HEIGHT, "width": WIDTH} for i, n in enumerate(NAMES)]
    annotations = []
    for i in range(len(NAMES)):
        cat, dog, bird = scene(i)
        runs: Any = {"size": [HEIGHT, WIDTH], "counts": (run_lengths if kind == "list" else run_lengths_as_text)(bird)}
        if kind == "polygon":
            left, top, right, bottom = BIRD
            corners = [left, top, right, top, right, bottom, left, bottom]
            runs = [[x - i if j % 2 == 0 else x for j, x in enumerate(corners)]]
        for category, region in ((8, runs), (2, [np.ravel(cat).tolist()]), (5, [np.ravel(dog).tolist()])):
            annotations.append({"image_id": 10 + i, "category_id": category, "segmentation": region})
            annotations[-1] |= {"id": len(annotations), "iscrowd": int(isinstance(region, dict)), "bbox": [0, 0, 1, 1]}
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def write_coco(root: Path, kind: str = "text") -> None:
    write_images(root / "images")
    (root / "annotations").mkdir()
    (root / "annotations" / "instances.json").write_text(json.dumps(coco(kind)))


def write_roboflow(root: Path) -> None:
    """Write COCO's JSON as Roboflow does: beside the images, with a parent of all labels."""
    write_images(root / "train")
    content = coco("polygon")
    content["categories"] = [{**category, "supercategory": "pets"} for category in content["categories"]]
    content["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
    (root / "train" / "_annotations.coco.json").write_text(json.dumps(content))


def labels_of(index: int) -> np.ndarray:
    """Return the ids of an image: 0 the background, 1 to 3 its labels, as the golden masks have them."""
    golden = yaml.safe_load((Path(__file__).parents[1] / "golden" / "annotations.yaml").read_text())
    return np.array(
        [["-cdb".index(letter) for letter in row] for row in golden["masks"][NAMES[index]].split()], np.uint8
    )


def write_roboflow_masks(root: Path) -> None:
    write_images(root / "train")
    for i, name in enumerate(NAMES):
        Image.fromarray(labels_of(i)).save(root / "train" / f"{Path(name).stem}_mask.png")
    rows = "".join(f"{i}, {name}\n" for i, name in enumerate(["background", *LABELS]))
    (root / "train" / "_classes.csv").write_text(f"Pixel Value, Class\n{rows}")


def write_cvat_masks(root: Path) -> None:
    write_images(root / "JPEGImages")
    colors = np.array([(0, 0, 0), (250, 50, 83), (184, 61, 245), (36, 179, 83)], np.uint8)
    for folder in ("SegmentationClass", "SegmentationObject"):
        (root / folder).mkdir()
        for i, name in enumerate(NAMES):
            Image.fromarray(colors[labels_of(i)]).save(root / folder / f"{Path(name).stem}.png")
    labels = zip(["background", *LABELS], colors.tolist(), strict=True)
    lines = [f"{name}:{','.join(map(str, color))}::\n" for name, color in labels]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "".join(lines))
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "default.txt").write_text("".join(f"{Path(n).stem}\n" for n in NAMES))


def box(index: int, mask: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Return left, top and pixels of the bird's box with a border of one pixel that is not set."""
    left, top, right, bottom = BIRD
    return left - index - 1, top - 1, mask[top - 1 : bottom + 1, left - index - 1 : right - index + 1]


def write_labelme(root: Path, folder: str = "images") -> None:
    write_images(root / folder)
    for i, name in enumerate(NAMES):
        cat, dog, bird = scene(i)
        left, top, pixels = box(i, bird)
        png = BytesIO()
        Image.fromarray(pixels).save(png, format="PNG")
        ends = [[left, top], [left + pixels.shape[1] - 1, top + pixels.shape[0] - 1]]
        shapes: list[dict[str, Any]] = [
            {"label": "cat", "points": cat, "shape_type": "polygon", "flags": {}, "group_id": None},
            {"label": "dog", "points": dog, "shape_type": "polygon", "flags": {}, "group_id": 1},
            {"label": "bird", "points": ends, "shape_type": "mask", "mask": base64.b64encode(png.getvalue()).decode()},
            {"label": "dog", "points": [[1, 1]], "shape_type": "point"},
        ]
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None}
        content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        (root / folder / f"{Path(name).stem}.json").write_text(json.dumps(content))


def write_cvat(root: Path) -> None:
    write_images(root / "images")
    document = ElementTree.Element("annotations")
    ElementTree.SubElement(document, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(document, "meta"), "job"), "labels")
    for label in LABELS:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = label
    for i, name in enumerate(NAMES):
        cat, dog, bird = scene(i)
        left, top, pixels = box(i, bird)
        keys = {"id": i, "name": name, "width": WIDTH, "height": HEIGHT}
        image = ElementTree.SubElement(document, "image", {key: str(value) for key, value in keys.items()})
        runs = run_lengths(pixels.T)
        place = {"left": left, "top": top, "width": pixels.shape[1], "height": pixels.shape[0], "z_order": 2}
        mask = {"label": "bird", "rle": ", ".join(map(str, runs)), **{key: str(x) for key, x in place.items()}}
        ElementTree.SubElement(image, "mask", mask)  # the topmost one comes first
        for label, ring in (("cat", cat), ("dog", dog)):
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in ring)
            ElementTree.SubElement(image, "polygon", {"label": label, "points": points, "z_order": "0"})
        ElementTree.SubElement(image, "points", {"label": "dog", "points": "1.00,1.00", "z_order": "0"})
    ElementTree.ElementTree(document).write(root / "annotations.xml", encoding="utf-8", xml_declaration=True)


def brush(mask: np.ndarray) -> list[int]:
    """Return a mask as Label Studio stores a brush: runs of repeated values, and the values of shorter ones."""
    values = np.repeat(mask.ravel().astype(int) * 255, 4).tolist()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for value, run in itertools.groupby(values):
        left = len(list(run))
        while left:
            if left < 3:
                bits, left = f"{bits}000{left - 1:03b}" + f"{value:08b}" * left, 0
            else:
                kind, size = next((k, s) for k, s in enumerate((3, 4, 8, 16)) if left <= 2**s or s == 16)
                length = min(left, 2**size)
                bits, left = f"{bits}1{kind:02b}{length - 1:0{size}b}{value:08b}", left - length
    return [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]


def label_studio() -> list[dict[str, Any]]:
    tasks = []
    for i, name in enumerate(NAMES):
        cat, dog, bird = scene(i)
        common = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
        polygons = [
            {"type": "polygonlabels", "value": {"points": points, "closed": True, "polygonlabels": [label]}, **common}
            for label, ring in (("cat", cat), ("dog", dog))
            if (points := [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ring])
        ]
        mask = {
            "type": "brushlabels",
            "value": {"format": "rle", "rle": brush(bird), "brushlabels": ["bird"]},
            **common,
        }
        choice = {"type": "choices", "value": {"choices": ["sharp"]}}
        done = {"id": 1, "was_cancelled": False, "ground_truth": False, "result": [*polygons, mask, choice]}
        image = f"/data/upload/1/{i}f2a1b9c-{quote(name)}"
        tasks.append({"id": i, "data": {"text": "a pet", "image": image}, "annotations": [done]})
    return tasks


def write_label_studio(root: Path) -> None:
    write_images(root / "images")
    (root / "project-1.json").write_text(json.dumps(label_studio()))


def write_cityscapes_polygons(root: Path) -> None:
    """Write the layout of Cityscapes, with the bird as a polygon."""
    write_images(root / "leftImg8bit" / "train" / "zoo", [f"{Path(name).stem}_leftImg8bit.png" for name in NAMES])
    (root / "gtFine" / "train" / "zoo").mkdir(parents=True)
    left, top, right, bottom = BIRD
    for i, name in enumerate(NAMES):
        cat, dog, _ = scene(i)
        bird = [(left - i, top), (right - i, top), (right - i, bottom), (left - i, bottom)]
        things = [{"label": label, "polygon": ring} for label, ring in (("cat", cat), ("dog", dog), ("bird", bird))]
        things.append({"label": "cat", "polygon": [[0, 0], [20, 0], [20, 14]], "deleted": 1})
        content = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": things}
        file = root / "gtFine" / "train" / "zoo" / f"{Path(name).stem}_gtFine_polygons.json"
        file.write_text(json.dumps(content))


WRITERS: dict[str, Callable[[Path], None]] = {
    "coco polygons": lambda root: write_coco(root, "polygon"),
    "coco lists": lambda root: write_coco(root, "list"),
    "coco text": write_coco,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "cvat masks": write_cvat_masks,
    "roboflow": write_roboflow,
    "roboflow masks": write_roboflow_masks,
    "label studio": write_label_studio,
    "cityscapes": write_cityscapes_polygons,
}
