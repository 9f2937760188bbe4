"""Scores of every class at every pixel, of which only a band of rows exists at a time.

An image of 8,000 x 8,000 has 36 GiB of scores for 150 classes. Each step from a network's logits to labels needs no
more than some rows of the step before; so a step is kept as a way to make rows, and `labels` asks for a band after the
other, from top to bottom. Small bands stay in the processor's cache, too, which makes them several times as fast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastfcn_pl.ops.interpolate import resize_rows, source_rows

# Measured on 512x683 and 8,000x8,000 pixels of 150 classes. A CPU's band has to stay below the 32 MB from which on
# malloc takes fresh pages for each tensor; a GPU's has to keep it busy.
_BAND = {"cpu": 2**21, "cuda": 2**26}
_LEAST_ROWS = 4


class Box(NamedTuple):
    """A window of an image: its rows `top` to `bottom`, its columns `left` to `right`, the last ones not included."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True)
class ScoreMap:
    """A map of scores of `shape` `(B, h, w, C)`; `rows(top, bottom)` makes `(B, bottom - top, w, C)` of it, float32.

    On CPUs classes come last in memory, where their argmax is cheap. Scores are `logits`, or else weights that sum to
    no particular number.
    """

    shape: tuple[int, int, int, int]
    device: torch.device
    rows: Callable[[int, int], Tensor]
    logits: bool

    @classmethod
    def of(cls, logits: Tensor) -> ScoreMap:
        """Return a map of `logits` `(B, C, h, w)`."""
        batch, classes, height, width = logits.shape
        x = logits.float().permute(0, 2, 3, 1)
        x = x.contiguous() if x.device.type == "cpu" else x
        return cls((batch, height, width, classes), x.device, lambda top, bottom: x[:, top:bottom], logits=True)

    def resized(self, size: tuple[int, int], align_corners: bool) -> ScoreMap:
        """Return the map bilinearly interpolated to `size` `(h, w)`."""
        batch, source, width, classes = self.shape
        if (source, width) == size:
            return self

        def rows(top: int, bottom: int) -> Tensor:
            wanted = range(top, bottom)
            needed = source_rows(wanted, source, size[0], align_corners)
            return resize_rows(self.rows(needed.start, needed.stop), wanted, source, *size, align_corners)

        return replace(self, shape=(batch, *size, classes), rows=rows)

    def cropped(self, height: int, width: int) -> ScoreMap:
        """Return the map's first rows and columns."""
        batch, _, _, classes = self.shape
        return replace(
            self, shape=(batch, height, width, classes), rows=lambda top, bottom: self.rows(top, bottom)[:, :, :width]
        )

    def mirrored(self) -> ScoreMap:
        """Return the map with left and right exchanged."""
        return replace(self, rows=lambda top, bottom: self.rows(top, bottom).flip(2))

    def apply(self, function: Callable[[Tensor], Tensor], logits: bool) -> ScoreMap:
        """Return the map of `function` of the scores; it sees `(B, rows, w, C)` and keeps this shape."""
        return replace(self, rows=lambda top, bottom: function(self.rows(top, bottom)), logits=logits)

    def labels(self) -> Tensor:
        """Return the class of the highest score at each pixel: `(B, h, w)`, int64."""
        found = torch.empty(self.shape[:3], dtype=torch.int64, device=self.device)
        for top, bottom in self._bands():
            found[:, top:bottom] = _argmax(self.rows(top, bottom))
        return found

    def probabilities(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yield bands from top to bottom: their first row, the row behind their last, and `(B, rows, w, C)` of it.

        Of each pixel they sum to 1: the softmax of logits, and the share that a weight has of all.
        """
        for top, bottom in self._bands():
            scores = self.rows(top, bottom)
            yield top, bottom, scores.softmax(-1) if self.logits else scores / scores.sum(-1, keepdim=True)

    def _bands(self) -> Iterator[tuple[int, int]]:
        batch, height, width, classes = self.shape
        step = max(_LEAST_ROWS, _BAND.get(self.device.type, _BAND["cuda"]) // (batch * width * classes))
        for top in range(0, height, step):
            yield top, min(top + step, height)

    def scores(self) -> Tensor:
        """Return the whole map as a tensor `(B, C, h, w)`."""
        return self.rows(0, self.shape[1]).permute(0, 3, 1, 2).contiguous()


def total(maps: Sequence[ScoreMap]) -> ScoreMap:
    """Return the sum of maps of one shape."""
    return replace(maps[0], rows=lambda top, bottom: functools.reduce(torch.add, (m.rows(top, bottom) for m in maps)))


def mosaic(
    shape: tuple[int, int, int, int],
    device: torch.device,
    boxes: Sequence[Box],
    score: Callable[[Box], ScoreMap],
    logits: bool,
) -> ScoreMap:
    """Return the map that is, at each pixel, the mean of the maps `score(box)` of the boxes over it.

    A box is scored when a row of it is first asked for, and forgotten when all rows asked for are below it.
    """
    batch, _, width, classes = shape
    alive: dict[Box, ScoreMap] = {}

    def rows(top: int, bottom: int) -> Tensor:
        for box in [box for box in alive if box.bottom <= top]:
            del alive[box]
        summed = torch.zeros(batch, bottom - top, width, classes, device=device)
        count = torch.zeros(bottom - top, width, 1, device=device)
        for box in boxes:
            if box.top < bottom and box.bottom > top:
                if box not in alive:
                    alive[box] = score(box)
                first, last = max(top, box.top), min(bottom, box.bottom)
                here = slice(first - top, last - top), slice(box.left, box.right)
                summed[:, *here] += alive[box].rows(first - box.top, last - box.top)
                count[here] += 1
        return summed / count

    return ScoreMap(shape, device, rows, logits)


def _argmax(scores: Tensor) -> Tensor:
    """Return the argmax over the last dimension; on CPUs it is numpy's, which is vectorised where torch's is not."""
    return torch.from_numpy(scores.numpy().argmax(-1)) if scores.device.type == "cpu" else scores.argmax(-1)
