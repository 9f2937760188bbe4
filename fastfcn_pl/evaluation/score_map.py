"""Class scores at every pixel, computed in bands of rows so that large images fit into memory.

The scores of 150 classes for an 8,000 x 8,000 image take 36 GiB. Every step from a network's logits to labels needs
only some rows of the step before, so a step is stored as a function that makes rows. `labels` then asks for one band
after another, from top to bottom. Small bands are also fast because they stay in the processor's cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastfcn_pl.core.types import Box
from fastfcn_pl.ops.interpolate import resize_rows, source_rows

# On CPUs, malloc requests fresh pages for tensors of 32 MB and more, so bands stay below that. GPUs need larger ones.
_SCORES_PER_BAND = {"cpu": 2**21, "cuda": 2**26}
_MIN_ROWS = 4


@dataclass(frozen=True)
class ScoreMap:
    """Scores of `shape` `(B, h, w, C)`; `rows(top, bottom)` computes `(B, bottom - top, w, C)` of them in float32.

    Classes come last because argmax is fast on CPUs over the last dimension. Scores are `logits`, or else
    non-negative weights that need not sum to 1.
    """

    shape: tuple[int, int, int, int]
    device: torch.device
    rows: Callable[[int, int], Tensor]
    logits: bool

    @classmethod
    def of(cls, logits: Tensor) -> ScoreMap:
        """Return the map of `logits` `(B, C, h, w)`."""
        batch, classes, height, width = logits.shape
        x = logits.float().permute(0, 2, 3, 1)
        x = x.contiguous() if x.device.type == "cpu" else x
        return cls((batch, height, width, classes), x.device, lambda top, bottom: x[:, top:bottom], logits=True)

    def resized(self, size: tuple[int, int], align_corners: bool) -> ScoreMap:
        """Return the map bilinearly interpolated to `size` `(h, w)`."""
        batch, height, width, classes = self.shape
        if (height, width) == size:
            return self

        def rows(top: int, bottom: int) -> Tensor:
            band = range(top, bottom)
            source = source_rows(band, height, size[0], align_corners)
            return resize_rows(self.rows(source.start, source.stop), band, height, *size, align_corners)

        return replace(self, shape=(batch, *size, classes), rows=rows)

    def cropped(self, height: int, width: int) -> ScoreMap:
        """Return the first `height` rows and `width` columns of the map."""
        batch, _, _, classes = self.shape
        return replace(
            self, shape=(batch, height, width, classes), rows=lambda top, bottom: self.rows(top, bottom)[:, :, :width]
        )

    def flipped(self) -> ScoreMap:
        """Return the map flipped left to right."""
        return replace(self, rows=lambda top, bottom: self.rows(top, bottom).flip(2))

    def apply(self, function: Callable[[Tensor], Tensor], logits: bool) -> ScoreMap:
        """Return the map of `function(scores)`; it is called on bands `(B, rows, w, C)` and keeps their shape."""
        return replace(self, rows=lambda top, bottom: function(self.rows(top, bottom)), logits=logits)

    def labels(self) -> Tensor:
        """Return the class with the highest score at each pixel: `(B, h, w)`, int64."""
        labels = torch.empty(self.shape[:3], dtype=torch.int64, device=self.device)
        for top, bottom in self._bands():
            labels[:, top:bottom] = _argmax(self.rows(top, bottom))
        return labels

    def labels_and_confidence(self) -> tuple[Tensor, Tensor]:
        """Return the labels, as `labels` does, and the probability of each of them: `(B, h, w)`, float32."""
        labels, confidence = [], []
        for top, bottom in self._bands():
            scores = self.rows(top, bottom)
            band = _argmax(scores)
            labels.append(band)
            confidence.append(self._normalized(scores).gather(-1, band[..., None])[..., 0])
        # a weight that overflowed is infinite, and so is the sum that it is divided by
        return torch.cat(labels, 1), torch.cat(confidence, 1).nan_to_num(nan=1.0)

    def probabilities(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yield `(top, bottom, probabilities)` of bands from top to bottom; probabilities are `(B, rows, w, C)`.

        They sum to 1 at each pixel: the softmax of logits, or weights divided by their sum.
        """
        for top, bottom in self._bands():
            yield top, bottom, self._normalized(self.rows(top, bottom))

    def _normalized(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1) if self.logits else scores / scores.sum(-1, keepdim=True)

    def _bands(self) -> Iterator[tuple[int, int]]:
        batch, height, width, classes = self.shape
        scores = _SCORES_PER_BAND.get(self.device.type, _SCORES_PER_BAND["cuda"])
        step = max(_MIN_ROWS, scores // (batch * width * classes))
        for top in range(0, height, step):
            yield top, min(top + step, height)

    def scores(self) -> Tensor:
        """Return the whole map as a tensor `(B, C, h, w)`."""
        return self.rows(0, self.shape[1]).permute(0, 3, 1, 2).contiguous()


def sum_maps(maps: Sequence[ScoreMap]) -> ScoreMap:
    """Return the sum of maps of the same shape."""
    return replace(maps[0], rows=lambda top, bottom: functools.reduce(torch.add, (m.rows(top, bottom) for m in maps)))


def average_windows(
    shape: tuple[int, int, int, int],
    device: torch.device,
    boxes: Sequence[Box],
    score: Callable[[Box], ScoreMap],
    logits: bool,
) -> ScoreMap:
    """Return the map of `shape` that averages `score(box)` over all `boxes` that cover a pixel.

    A box is scored when one of its rows is first requested, and freed once the requested rows are below it.
    """
    batch, _, width, classes = shape
    cache: dict[Box, ScoreMap] = {}

    def rows(top: int, bottom: int) -> Tensor:
        for box in [box for box in cache if box.bottom <= top]:
            del cache[box]
        summed = torch.zeros(batch, bottom - top, width, classes, device=device)
        count = torch.zeros(bottom - top, width, 1, device=device)
        for box in boxes:
            if box.top < bottom and box.bottom > top:
                if box not in cache:
                    cache[box] = score(box)
                first, last = max(top, box.top), min(bottom, box.bottom)
                region = slice(first - top, last - top), slice(box.left, box.right)
                summed[:, *region] += cache[box].rows(first - box.top, last - box.top)
                count[region] += 1
        return summed / count

    return ScoreMap(shape, device, rows, logits)


def _argmax(scores: Tensor) -> Tensor:
    """Return the argmax over the last dimension; numpy's is vectorised on CPUs, torch's is not."""
    return torch.from_numpy(scores.numpy().argmax(-1)) if scores.device.type == "cpu" else scores.argmax(-1)
