"""Masks as CVAT (labelmap.txt) and Roboflow (_classes.csv) export them, with a list of their labels."""

from __future__ import annotations

import csv
from pathlib import Path

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.name_lists import read_lines
from fastfcn_pl.data.io.pairs import glob_visible
from fastfcn_pl.tools.prepare.annotations.annotated import (
    AnnotatedImage,
    AnnotationSet,
    LabelMap,
    file_split,
    label_name,
    reading,
    split_of,
)

LABEL_MAP, CLASSES = "labelmap.txt", "_classes.csv"
_SUFFIX = "_mask.png"
_REMEDY = "export it again"


def read_cvat(path: Path, content: object, root: Path) -> AnnotationSet:
    """Return the masks in `SegmentationClass` beside a `labelmap.txt`, with the splits that `ImageSets` lists."""
    with reading(path, "CVAT's labelmap.txt"):
        colors = {}
        for line in read_lines(path, _REMEDY):
            if line and not line.startswith("#"):
                name, color, *_ = line.split(":")
                red, green, blue = (int(part) for part in color.split(","))
                colors[red << 16 | green << 8 | blue] = label_name(name)
    if not colors:
        raise UserError(f"{path} names no label: {_REMEDY}")
    lists = glob_visible(path.parent / "ImageSets" / "Segmentation", "*.txt")
    splits = {name: split_of(listing.stem) for listing in lists for name in read_lines(listing, _REMEDY)}
    folder = path.parent / "SegmentationClass"
    result = AnnotationSet(list(dict.fromkeys(colors.values())))
    for mask in glob_visible(folder, "**/*.png"):
        name = mask.relative_to(folder).with_suffix("").as_posix()
        split = splits.get(name) or file_split(path, root)
        result.images.append(AnnotatedImage(path, name, None, split=split, label_map=LabelMap(mask, colors, True)))
    if not result.images:
        raise UserError(f"{folder}, beside {path.name}, has no PNG: {_REMEDY}")
    return result


def read_roboflow(path: Path, content: object, root: Path) -> AnnotationSet:
    """Return the masks `<image>_mask.png` beside a `_classes.csv`."""
    with reading(path, "Roboflow's _classes.csv"):
        rows = [row for row in csv.reader(read_lines(path, _REMEDY)) if row]
        labels = {int(number): label_name(name) for number, name in rows[1:]}
    if not labels:
        raise UserError(f"{path} names no label: {_REMEDY}")
    result = AnnotationSet([labels[number] for number in sorted(labels)])
    for mask in glob_visible(path.parent, f"*{_SUFFIX}"):
        label_map = LabelMap(mask, labels, False)
        name, split = mask.name.removesuffix(_SUFFIX), file_split(path, root)
        result.images.append(AnnotatedImage(path, name, None, split=split, label_map=label_map))
    if not result.images:
        raise UserError(f"{path.parent} has no mask *{_SUFFIX} beside {path.name}: {_REMEDY}")
    return result
