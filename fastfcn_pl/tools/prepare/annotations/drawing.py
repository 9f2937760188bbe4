"""Drawing of annotated images as masks of class indices, and counts of what overlapped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fastfcn_pl.core.types import UserError, listed
from fastfcn_pl.data.io.image_files import FileSource, image_size, read_colors, read_ids
from fastfcn_pl.data.io.label_ids import count_ids, look_up
from fastfcn_pl.tools.prepare.annotations.annotated import IGNORED, AnnotatedImage, Annotation, LabelMap, OnTop
from fastfcn_pl.tools.prepare.annotations.regions import window

_NOTHING = -1


@dataclass
class Tally:
    """Counts of drawn masks: pixels by class index, and hidden pixels by hidden and hiding class.

    `empty` is the number of annotations that cover no pixel centre.
    """

    pixels: Counter[int] = field(default_factory=Counter)
    hidden: Counter[tuple[int, int]] = field(default_factory=Counter)
    empty: int = 0

    def add(self, other: Tally) -> None:
        self.pixels += other.pixels
        self.hidden += other.hidden
        self.empty += other.empty


@dataclass(frozen=True)
class MaskDrawer:
    """Draws annotated images; `ids` maps labels to class indices or `IGNORE`, and `background` is the rest.

    `on_top` is the annotation that hides another: the `smaller`, by its pixels, or the `later`. Crowds are ignored
    unless `crowd`.
    """

    ids: Mapping[str | None, int]
    background: int
    on_top: OnTop
    crowd: bool
    max_pixels: int | None

    def __call__(self, task: tuple[AnnotatedImage, Path, Path]) -> Tally:
        """Write the mask of an image: `(annotated, path of the image, path of the mask)`."""
        annotated, image, path = task
        width, height = image_size(image, True, self.max_pixels)
        if annotated.size not in (None, (height, width)):
            stated = "{1}x{0}".format(*annotated.size or ())
            raise UserError(
                f"{annotated.origin} states the size {stated} for {image}, which is {width}x{height}: restore the "
                "image that was annotated, or export the annotations again"
            )
        tally = Tally()
        if annotated.label_map is None:
            labels = self._draw(annotated, height, width, tally)
        else:
            labels = self._read(annotated, annotated.label_map, image, (height, width))
        for label, count in zip(*(array.tolist() for array in count_ids(labels)), strict=True):
            tally.pixels[label] += count
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(path, format="PNG")
        return tally

    def _read(self, annotated: AnnotatedImage, label_map: LabelMap, image: Path, size: tuple[int, int]) -> np.ndarray:
        path, read_mask = label_map.path, read_colors if label_map.colors else read_ids
        values = FileSource([(image, path)], read_mask, True, self.max_pixels).ids(0)
        if values.shape != size:
            raise UserError(f"{path} does not have the size of its image {image}: export both again")
        labels = look_up(values, {number: self.ids[label] for number, label in label_map.labels.items()})
        if labels.min() < 0:
            unknown = np.unique(values[labels < 0]).tolist()
            names = [f"#{value:06x}" for value in unknown] if label_map.colors else unknown
            raise UserError(
                f"{path} has the {'colour' if label_map.colors else 'id'} {listed(names)}, which {annotated.origin} "
                "does not name: add it there, or export both again"
            )
        return labels.astype(np.uint8)

    def _index(self, annotation: Annotation) -> int:
        return self.ids[IGNORED if annotation.crowd and not self.crowd else annotation.label]

    def _draw(self, annotated: AnnotatedImage, height: int, width: int, tally: Tally) -> np.ndarray:
        try:
            patches = [(self._index(drawn), drawn.region.draw(height, width)) for drawn in annotated.annotations]
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise UserError(
                f"{annotated.origin} has an annotation of {annotated.name} that cannot be drawn ({error}): repair it, "
                "or export it again"
            ) from error
        areas = [int(np.count_nonzero(patch.mask)) for _, patch in patches]
        order = list(range(len(patches)))
        if self.on_top == "smaller":
            order.sort(key=lambda i: -areas[i])
        canvas = np.full((height, width), _NOTHING, np.int16)
        for i in order:
            index, (top, left, mask) = patches[i]
            view = window(canvas, top, left, mask)
            for below, count in enumerate(np.bincount(view[mask] - _NOTHING).tolist(), start=_NOTHING):
                if count and below not in (_NOTHING, index):
                    tally.hidden[below, index] += count
            view[mask] = index
        tally.empty += areas.count(0)
        return np.where(canvas == _NOTHING, self.background, canvas).astype(np.uint8)
