"""One small annotated set, as each tool exports it: four images of 20x14 with a cat, a dog and a bird."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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


WRITERS: dict[str, Callable[[Path], None]] = {
    "coco polygons": lambda root: write_coco(root, "polygon"),
    "coco lists": lambda root: write_coco(root, "list"),
    "coco text": write_coco,
}
