"""From a network and an image to labels: pure functions, each an evaluation protocol by its name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from fastfcn_pl.resize import resize

Protocol = Callable[[nn.Module, Tensor, tuple[int, int]], Tensor]
"""A network, normalised images `(B, 3, H, W)` and a size `(h, w)` to class indices `(B, h, w)`, int64."""


def logits(model: nn.Module, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Return logits `(B, num_classes, h, w)` in float32 for normalised images `x`; `size` is `x`'s where not given."""
    return resize(model(x).logits.float(), size or x.shape[-2:], model.align_corners)


def native(model: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Whole image at its own size, single scale, no flip; logits resized to the label's `size`, then argmax."""
    return logits(model, x, size).argmax(dim=1)
