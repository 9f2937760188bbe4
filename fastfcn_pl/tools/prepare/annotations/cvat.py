"""CVAT for images 1.1: XML with polygons, boxes, ellipses and masks, in their z-order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.prepare.annotations.annotated import (
    AnnotatedImage,
    Annotation,
    AnnotationSet,
    file_split,
    image_size,
    label_name,
    reading,
    split_of,
    used_labels,
    within,
)
from fastfcn_pl.tools.prepare.annotations.regions import (
    Bitmap,
    Polygons,
    Region,
    corners,
    ellipse,
    rectangle,
    rotate,
    runs_to_mask,
)

Element = ElementTree.Element


def load(path: Path) -> Element:
    """Return the root element of an XML file; raises UserError if it is not one."""
    try:
        return ElementTree.parse(path).getroot()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions, or leave it out") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path} is not XML ({error}): export it again, or leave it out") from error


def recognise(content: object) -> bool:
    return isinstance(content, Element) and content.tag == "annotations"


def read(path: Path, content: Element, root: Path) -> AnnotationSet:
    """Return the annotations in the root element of a file; points and lines, which have no area, are left out."""
    if content.find("track") is not None:
        raise UserError(f"{path} is CVAT for video: export the task as CVAT for images 1.1")
    result = AnnotationSet()
    with reading(path, "CVAT's XML for images"):
        result.labels = [label_name(name.text) for name in content.iterfind("meta//label/name")]
        for element in content.iterfind("image"):
            with within(f"image {element.get('id')}"):
                size = image_size(float(element.attrib["height"]), float(element.attrib["width"]))
                split = split_of(element.get("subset", "")) or file_split(path, root)
                image = AnnotatedImage(path, element.attrib["name"], size, split=split)
                drawn = [shape for shape in element if shape.tag in _REGIONS]
                for shape in sorted(drawn, key=lambda shape: int(shape.get("z_order", 0))):
                    label = label_name(shape.attrib["label"])
                    image.annotations.append(Annotation(label, _REGIONS[shape.tag](shape)))
                for shape in element:
                    if shape.tag not in (*_REGIONS, "tag"):
                        result.skipped[f"shapes of type {shape.tag}"] += 1
                result.images.append(image)
        result.labels = list(dict.fromkeys([*result.labels, *used_labels(result.images)]))
    return result


def _numbers(shape: Element, *names: str) -> list[float]:
    return [float(shape.attrib[name]) for name in names]


def _polygon(shape: Element) -> Region:
    return Polygons([corners(shape.attrib["points"].replace(";", ",").split(","))])


def _box(shape: Element) -> Region:
    left, top, right, bottom = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
    box = rectangle(left, top, right, bottom)
    return Polygons([rotate(box, float(shape.get("rotation", 0)), ((left + right) / 2, (top + bottom) / 2))])


def _ellipse(shape: Element) -> Region:
    x, y, radius_x, radius_y = _numbers(shape, "cx", "cy", "rx", "ry")
    return Polygons([rotate(ellipse(x, y, radius_x, radius_y), float(shape.get("rotation", 0)), (x, y))])


def _mask(shape: Element) -> Region:
    """Return a mask, whose run lengths are row by row and start with pixels that are not set."""
    left, top, width, height = (int(number) for number in _numbers(shape, "left", "top", "width", "height"))
    runs = [int(run) for run in shape.attrib["rle"].split(",")]
    return Bitmap(top, left, partial(runs_to_mask, runs, height, width))


_REGIONS: dict[str, Callable[[Element], Region]] = {
    "polygon": _polygon,
    "box": _box,
    "ellipse": _ellipse,
    "mask": _mask,
}
