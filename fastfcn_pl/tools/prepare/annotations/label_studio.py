"""Label Studio's JSON: brush masks, polygons, rectangles and ellipses, later ones on top."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.pairs import EXTENSIONS
from fastfcn_pl.tools.prepare.annotations.annotated import (
    AnnotatedImage,
    Annotation,
    AnnotationSet,
    file_split,
    image_size,
    label_name,
    reading,
    used_labels,
    within,
)
from fastfcn_pl.tools.prepare.annotations.regions import Bitmap, Polygons, Region, corners, ellipse, rectangle, rotate

_KINDS = ("brush", "polygon", "rectangle", "ellipse")


def recognise(content: Any) -> bool:
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(task, dict) and ("annotations" in task or "image" in task) for task in content)
    )


def read(path: Path, content: Any, root: Path) -> AnnotationSet:
    """Return the annotations in the content of a file; tasks that nobody has annotated are left out."""
    if isinstance(content, list) and any(isinstance(task, dict) and "data" not in task for task in content):
        raise UserError(f"{path} is Label Studio's JSON-MIN, which lacks sizes and masks: export it as JSON")
    result = AnnotationSet()
    with reading(path, "Label Studio's JSON"):
        for task in content:
            with within(f"task {task.get('id')}"):
                done = [one for one in task["annotations"] if not one.get("was_cancelled")]
                if not done:
                    result.skipped["tasks without annotations"] += 1
                    continue
                result.skipped["annotations by others of the same task"] += len(done) - 1
                chosen = max(done, key=lambda one: bool(one.get("ground_truth")))
                result.images.append(_read_task(path, task["data"], chosen["result"], file_split(path, root), result))
    result.skipped = +result.skipped
    result.labels = used_labels(result.images)
    return result


def _read_task(
    path: Path, data: dict[str, Any], results: list[dict[str, Any]], split: str | None, found: AnnotationSet
) -> AnnotatedImage:
    """Return the image of a task; what has no area is counted in `found`."""
    sizes = [image_size(one.get("original_height"), one.get("original_width")) for one in results]
    size = next(filter(None, sizes), None)
    annotations = []
    for one in results:
        kind = str(one.get("type")).removesuffix("labels")
        names = one["value"].get(one.get("type")) or one["value"].get("labels") if kind in _KINDS else None
        if not names or size is None:
            found.skipped[f"results of type {one.get('type')}"] += 1
            continue
        if one.get("image_rotation"):
            raise ValueError("the image was rotated while it was labelled, which is not supported")
        if len(names) > 1:
            raise ValueError(f"a region has the labels {' and '.join(map(str, names))}: give each one")
        annotations.append(Annotation(label_name(names[0]), _region(kind, one["value"], *size)))
    return AnnotatedImage(path, _image_name(data), size, annotations, split)


def _region(kind: str, value: dict[str, Any], height: int, width: int) -> Region:
    """Return a region, whose positions are percentages of the image's sides."""
    if kind == "brush":
        return Bitmap(0, 0, partial(decode, bytes(value["rle"]), height, width))
    if kind == "polygon":
        return Polygons([corners(value["points"]) * (width, height) / 100])
    x, y = value["x"] * width / 100, value["y"] * height / 100
    if kind == "ellipse":
        ring, center = ellipse(x, y, value["radiusX"] * width / 100, value["radiusY"] * height / 100), (x, y)
    else:
        ring = rectangle(x, y, x + value["width"] * width / 100, y + value["height"] * height / 100)
        center = x, y  # it is turned about its corner
    return Polygons([rotate(ring, value.get("rotation") or 0, center)])


def decode(data: bytes, height: int, width: int) -> np.ndarray:
    """Return the mask `(H, W)`, bool, of a brush: the pixels whose alpha is not 0.

    The bytes hold the number of values in 32 bits, the bits of a value less 1 in 5, and the bits of four lengths less 1
    in 4 each. Runs follow: 1 for one repeated value or 0 for single ones, the choice of a length, the length less 1,
    the value or values.
    """
    bits, position = "".join(f"{byte:08b}" for byte in data), 0

    def take(count: int) -> int:
        nonlocal position
        position += count
        if position > len(bits):
            raise ValueError("its brush mask ends too early")
        return int(bits[position - count : position], 2)

    total, value_bits, length_bits = take(32), take(5) + 1, [take(4) + 1 for _ in range(4)]
    if total != 4 * height * width:
        raise ValueError(f"a brush mask of {total} values for {width}x{height} pixels of 4")
    pixels, done = np.zeros(total, np.uint32), 0
    while done < total:
        repeated, length = take(1), take(length_bits[take(2)]) + 1
        if repeated:
            pixels[done : done + length] = take(value_bits)
        else:
            run = [take(value_bits) for _ in range(min(length, total - done))]
            pixels[done : done + len(run)] = run
        done += length
    return pixels.reshape(height, width, 4)[:, :, 3] > 0


def _image_name(data: dict[str, Any]) -> str:
    """Return the path of the image among the values of a task, which are paths or addresses."""
    for value in data.values():
        if isinstance(value, str):
            address = urlsplit(value.replace("\\", "/"))
            path = parse_qs(address.query).get("d", [unquote(address.path)])[0]  # d: a file that is served locally
            if PurePath(path).suffix.lower() in EXTENSIONS:
                return path
    raise ValueError(f"its data names no file of an image ({', '.join(EXTENSIONS)})")
