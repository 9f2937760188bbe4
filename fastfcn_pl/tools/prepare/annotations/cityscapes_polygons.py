"""Polygons as Cityscapes distributes them, `*_polygons.json`, one file for each image, later ones on top."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fastfcn_pl.data.datasets.cityscapes import TABLE
from fastfcn_pl.tools.prepare.annotations.annotated import (
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
from fastfcn_pl.tools.prepare.annotations.regions import Polygons, corners

_ENDING = re.compile(r"(_gt\w+?)?_polygons$")


def recognise(content: Any) -> bool:
    return isinstance(content, dict) and {"imgHeight", "imgWidth", "objects"} <= content.keys()


def read(path: Path, content: Any, root: Path) -> AnnotationSet:
    """Return the annotations in the content of a file; deleted objects are left out.

    A group, such as `cargroup`, has the label of its members, as in csCreateLabelImgs.
    """
    result = AnnotationSet()
    with reading(path, "the JSON of Cityscapes' polygons"):
        size = image_size(content["imgHeight"], content["imgWidth"])
        image = AnnotatedImage(path, _ENDING.sub("", path.stem), size, split=folder_split(path, root))
        for number, thing in enumerate(content["objects"], start=1):
            with within(f"object {number}"):
                if thing.get("deleted"):
                    result.skipped["deleted objects"] += 1
                    continue
                label = label_name(thing["label"])
                single = label.removesuffix("group")
                ring = corners(thing["polygon"])
                image.annotations.append(Annotation(single if single in TABLE else label, Polygons([ring])))
    result.images = [image]
    result.labels = used_labels(result.images)
    return result
