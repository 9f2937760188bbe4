"""Conversion of what annotation tools export to a data set of masks that `data=folder` reads."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastfcn_pl.core.types import IGNORE, UserError, listed, suggest
from fastfcn_pl.data.io.walk import walk
from fastfcn_pl.tools.prepare.annotations import cityscapes_polygons, coco, cvat, label_studio, labelme
from fastfcn_pl.tools.prepare.annotations import mask_exports as masks
from fastfcn_pl.tools.prepare.annotations.annotated import (
    BACKGROUND,
    IGNORED,
    AnnotationSet,
    OnTop,
    is_list_of_names,
    load_json,
)
from fastfcn_pl.tools.prepare.annotations.drawing import MaskDrawer
from fastfcn_pl.tools.prepare.annotations.image_index import ImageIndex
from fastfcn_pl.tools.prepare.annotations.output import Output, is_output
from fastfcn_pl.tools.prepare.annotations.splits import assign_splits


@dataclass(frozen=True)
class Format:
    """Format of annotation files: the end of their names, a test of their content, and a reader.

    The reader takes a file, its content and the root. `ordered` means that labels have ids, else they are sorted.
    """

    ending: str
    recognise: Callable[[Any], bool]
    read: Callable[[Path, Any, Path], AnnotationSet]
    on_top: OnTop = "later"
    ordered: bool = False


def _named(name: str) -> Callable[[Any], bool]:
    return lambda content: isinstance(content, Path) and content.name == name


FORMATS = {
    "coco": Format(".json", coco.recognise, coco.read, on_top="smaller", ordered=True),
    "labelme": Format(".json", labelme.recognise, labelme.read),
    "cvat": Format(".xml", cvat.recognise, cvat.read, ordered=True),
    "cvat_masks": Format(masks.LABEL_MAP, _named(masks.LABEL_MAP), masks.read_cvat, ordered=True),
    "roboflow_masks": Format(masks.CLASSES, _named(masks.CLASSES), masks.read_roboflow, ordered=True),
    "label_studio": Format(".json", label_studio.recognise, label_studio.read),
    "cityscapes": Format(".json", cityscapes_polygons.recognise, cityscapes_polygons.read),
}
_SUFFIXES = (".json", ".xml", ".txt", ".csv")
_INSTANCES = "SegmentationObject"
"""Folder of CVAT's masks of single things."""


class Annotations:
    """Annotation files below a root, in one `format` (null: recognised from their content), drawn as masks.

    `files` is a glob that selects the annotation files; null takes all. `background` is the class of pixels without an
    annotation; null ignores them. Labels in `ignore` are ignored, and so are crowds unless `crowd`. `on_top` is the
    annotation that hides another, `smaller` or `later`; null is the format's own rule. If the files name no splits,
    `val_share` of the images are for validation.
    """

    def __init__(
        self,
        *,
        format: str | None,
        files: str | None,
        background: str | None,
        ignore: list[str],
        crowd: bool,
        on_top: OnTop | None,
        val_share: float,
    ) -> None:
        if format is not None and format not in FORMATS:
            raise UserError(f"prepare.format={format}: no such format; {suggest(str(format), FORMATS)}")
        if on_top not in (None, "smaller", "later"):
            raise UserError(f"prepare.on_top={on_top}: no such rule; give smaller, later or null")
        if not is_list_of_names(ignore):
            raise UserError(f"prepare.ignore={ignore}: give a list of labels, in quotes if YAML reads one otherwise")
        if background is not None and not is_list_of_names([background]):
            raise UserError(f"prepare.background={background}: give the name of a class, in quotes, or null")
        if not 0 < val_share < 1:
            raise UserError(f"prepare.val_share={val_share}: give a share between 0 and 1, such as 0.2")
        self.format, self.files, self.background, self.ignore = format, files, background, ignore
        self.crowd, self.on_top, self.val_share = crowd, on_top, val_share

    def convert(
        self, root: Path, name: str, classes: list[str] | None, max_pixels: int | None, num_workers: int | None
    ) -> None:
        """Write `prepared/` below `root`, all or nothing, and print what it holds and the command that trains on it.

        `classes` are the class names in the order of their ids; None takes them from the annotations.
        """
        format, annotations = self._read(root)
        classes = self._classes(annotations, classes, root)
        maps = {image.label_map.path for image in annotations.images if image.label_map}
        index = ImageIndex(root, lambda folder: is_output(folder) or folder.name == _INSTANCES, maps)
        files = [index.find(image.name, image.origin) for image in annotations.images]
        splits = assign_splits(annotations.images, files, self.val_share)
        ids: dict[str | None, int] = {label: i for i, label in enumerate(classes)}
        ids |= dict.fromkeys([IGNORED, *self.ignore], IGNORE)
        background = IGNORE if self.background is None else ids[self.background]
        on_top = self.on_top or FORMATS[format].on_top
        output = Output(root, name, tuple(classes), on_top, max_pixels)
        draw = MaskDrawer(ids, background, on_top, self.crowd, max_pixels)
        tally = output.write(draw, annotations.images, files, splits, num_workers)
        print(f"{format}: {len(files)} masks in {output.folder}")
        output.print(tally, annotations.skipped, splits)

    def _read(self, root: Path) -> tuple[str, AnnotationSet]:
        """Return the format and the annotations of all files."""
        result, formats, others = AnnotationSet(), dict[str, Path](), list[Path]()
        for path in self._annotation_files(root):
            content = _load(path)
            fitting = (name for name, format in FORMATS.items() if format.recognise(content))
            if (name := self.format or next(fitting, None)) is None:
                others.append(path)
                continue
            formats.setdefault(name, path)
            if len(formats) > 1:
                (first, one), (second, other) = formats.items()
                raise UserError(
                    f"{one} is in the format {first} and {other} in {second}: choose with prepare.files='<glob>', or "
                    "prepare two folders"
                )
            result.add(FORMATS[name].read(path, content, root))
        if not formats:
            found = f" ({listed(others, 3)} is none)" if others else ""
            raise UserError(f"{root} has no annotation file{found}: export one as {listed([*FORMATS])}")
        if not result.images:
            raise UserError(f"{listed([*formats.values()])} lists no image: export the annotations again")
        if not any(image.annotations or image.label_map for image in result.images):
            raise UserError(f"{result.images[0].origin} annotates no region: label some, and export it again")
        if others:
            result.skipped[f"files that are no annotations, such as {others[0].name}"] = len(others)
        name = next(iter(formats))
        if not FORMATS[name].ordered:
            result.labels.sort()
        return name, result

    def _annotation_files(self, root: Path) -> Iterator[Path]:
        endings = [FORMATS[self.format].ending] if self.format else [format.ending for format in FORMATS.values()]
        for path in walk(root, _SUFFIXES, skip=is_output):
            chosen = self.files is None or fnmatch.fnmatchcase(path.relative_to(root).as_posix(), self.files)
            if chosen and path.name.lower().endswith(tuple(endings)):
                yield path

    def _classes(self, annotations: AnnotationSet, given: list[str] | None, root: Path) -> list[str]:
        """Return the classes in the order of their ids; raises UserError if a label is none of the `given` ones."""
        if given is not None and not is_list_of_names(given):
            raise UserError(f"data.classes={given}: give a list of names, in quotes if YAML reads one otherwise")
        labels = [label for label in annotations.labels if label not in self.ignore]
        background = [] if self.background is None else [self.background]
        classes = list(given or dict.fromkeys([*background, *labels]))
        for label in [*labels, *background]:
            if label not in classes:
                raise UserError(
                    f"data.classes lacks {label}, a label in {root} ({suggest(label, classes)}): add it, or set "
                    f"'prepare.ignore=[{label}]'"
                    if label in labels
                    else f"data.classes lacks {label}, the class of the other pixels: add it, or set "
                    "prepare.background=null to ignore them"
                )
        if not 2 <= len(classes) <= IGNORE:
            raise UserError(
                f"{root} has {len(classes)} classes, {listed(classes, 3)}: use 2 to {IGNORE}, with prepare.background="
                f"{BACKGROUND} for the pixels without an annotation"
            )
        return classes


def _load(path: Path) -> Any:
    """Return the content of a JSON or XML file, or the path of another."""
    loaders = {".json": load_json, ".xml": cvat.load}
    return loaders[path.suffix.lower()](path) if path.suffix.lower() in loaders else path
