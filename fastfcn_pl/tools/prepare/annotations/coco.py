"""COCO's JSON, also as Roboflow exports it: polygons and run lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastfcn_pl.tools.prepare.annotations.annotated import (
    AnnotatedImage,
    Annotation,
    AnnotationSet,
    file_split,
    image_size,
    label_name,
    reading,
    within,
)
from fastfcn_pl.tools.prepare.annotations.regions import Polygons, Region, RunLengths, corners


def recognise(content: Any) -> bool:
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def read(path: Path, content: Any, root: Path) -> AnnotationSet:
    """Return the annotations in the content of a file."""
    result = AnnotationSet()
    with reading(path, "COCO JSON"):
        names = _names(content["categories"])
        images: dict[Any, AnnotatedImage] = {}
        for image in content["images"]:
            with within(f"image {image.get('id')}"):
                if image["id"] in images:
                    raise ValueError("the id occurs twice")
                size = image_size(image.get("height"), image.get("width"))
                images[image["id"]] = AnnotatedImage(path, image["file_name"], size, split=file_split(path, root))
        for annotation in content["annotations"]:
            with within(f"annotation {annotation.get('id')}"):
                label = _look_up(names, annotation["category_id"], "category")
                image = _look_up(images, annotation["image_id"], "image")
                if (region := _region(annotation.get("segmentation"))) is None:
                    result.skipped["boxes without a segmentation"] += 1
                    continue
                image.annotations.append(Annotation(label, region, crowd=bool(annotation.get("iscrowd"))))
    result.images = list(images.values())
    result.labels = _without_root(content["categories"], names, result.images)
    return result


def _names(categories: list[dict[str, Any]]) -> dict[Any, str]:
    """Return the labels by id, in the order of the ids; ids of the same label are one class."""
    names: dict[Any, str] = {}
    for category in sorted(categories, key=lambda category: category["id"]):
        number, name = category["id"], label_name(category["name"])
        if names.setdefault(number, name) != name:
            raise ValueError(f"the category id {number} is both {names[number]} and {name}")
    return names


def _without_root(categories: list[dict[str, Any]], names: dict[Any, str], images: list[AnnotatedImage]) -> list[str]:
    """Return the labels without the one that Roboflow adds as the parent of all and never draws."""
    parents = {category.get("supercategory") for category in categories}
    roots = {category["name"].strip() for category in categories if category.get("supercategory") == "none"} & parents
    drawn = {annotation.label for image in images for annotation in image.annotations}
    return [name for name in dict.fromkeys(names.values()) if name not in roots - drawn]


def _look_up(items: dict[Any, Any], number: Any, kind: str) -> Any:
    if number not in items:
        raise ValueError(f"the file lists no {kind} {number}")
    return items[number]


def _region(segmentation: Any) -> Region | None:
    """Return the region of a segmentation; None if it is empty."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        height, width = segmentation["size"]
        return RunLengths((int(height), int(width)), segmentation["counts"])
    return Polygons([corners(ring) for ring in segmentation])
