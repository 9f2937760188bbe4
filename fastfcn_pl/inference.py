"""From a network and an image to labels: pure functions, each an evaluation protocol by its name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.resize import resize_logits

Protocol = Callable[[Segmenter, Tensor, tuple[int, int]], Tensor]
"""A network, normalised images `(B, 3, H, W)` and a size `(h, w)` to class indices `(B, h, w)`, int64."""


def logits(model: Segmenter, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Return logits `(B, num_classes, h, w)` in float32 for normalised images `x`; `size` is `x`'s where not given."""
    return resize_logits(model(x).logits, size or x.shape[-2:], model.align_corners)


def native(model: Segmenter, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Whole image at its own size, single scale, no flip; logits resized to the label's `size`, then argmax."""
    return logits(model, x, size).argmax(dim=1)
