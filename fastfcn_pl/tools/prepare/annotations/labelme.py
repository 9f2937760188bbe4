"""labelme's JSON, one file for each image: polygons, rectangles, circles and masks, later ones on top."""

from __future__ import annotations

import base64
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastfcn_pl.tools.prepare.annotations.annotated import (
    BACKGROUND,
    IGNORED,
    AnnotatedImage,
    Annotation,
    AnnotationSet,
    folder_split,
    image_size,
    label_name,
    reading,
    used_labels,
    within,
)
from fastfcn_pl.tools.prepare.annotations.regions import Bitmap, Polygons, Region, corners, ellipse, rectangle

_SPECIAL = {"__ignore__": IGNORED, "_background_": BACKGROUND}


def recognise(content: Any) -> bool:
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def read(path: Path, content: Any, root: Path) -> AnnotationSet:
    """Return the annotations in the content of a file; points and lines, which have no area, are left out."""
    result = AnnotationSet()
    with reading(path, "labelme's JSON"):
        size = image_size(content.get("imageHeight"), content.get("imageWidth"))
        image = AnnotatedImage(path, content["imagePath"], size, split=folder_split(path, root))
        for number, shape in enumerate(content["shapes"], start=1):
            with within(f"shape {number}"):
                kind = shape.get("shape_type") or "polygon"
                if (region := _region(kind, shape)) is None:
                    result.skipped[f"shapes of type {kind}"] += 1
                else:
                    label = label_name(shape["label"])
                    image.annotations.append(Annotation(_SPECIAL.get(label, label), region))
    result.images = [image]
    result.labels = used_labels(result.images)
    return result


def _region(kind: str, shape: dict[str, Any]) -> Region | None:
    """Return the region of a shape; None if it has no area."""
    if kind == "polygon":
        return Polygons([corners(shape["points"])])
    if kind not in ("rectangle", "circle", "mask"):
        return None
    (x, y), (end_x, end_y) = corners(shape["points"])
    if kind == "rectangle":
        return Polygons([rectangle(x, y, end_x, end_y)])
    if kind == "circle":  # its centre, and a point on it
        radius = float(np.hypot(end_x - x, end_y - y))
        return Polygons([ellipse(x, y, radius, radius)])
    return Bitmap(round(y), round(x), partial(_decode, shape["mask"]))


def _decode(text: str) -> np.ndarray:
    """Return the mask `(H, W)`, bool, in the text of a PNG."""
    try:
        with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as png:
            return np.asarray(png.convert("L")) > 0
    except Exception as error:  # decoders raise anything for a damaged file
        raise ValueError("its mask is no PNG") from error
