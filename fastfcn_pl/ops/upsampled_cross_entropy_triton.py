"""The cross entropy of upsampled logits as Triton kernels, which keep a pixel's scores in registers only.

Logits are resized to the labels' width first. One kernel interpolates between two of their rows and stores the
logarithm of the sum of exponentials for each pixel; another computes the scores again for the gradient of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastfcn_pl.ops.interpolate import Rows

_SCORES = 2048
"""Scores of a few pixels and all classes that a program keeps in registers, up to three times."""


@dataclass(frozen=True)
class Formula:
    """The loss of a labelled pixel, see `upsampled_cross_entropy`; `hits` and `spreads` are `(C,)` float32."""

    hits: Tensor
    spreads: Tensor
    ignore: int


def loss(wide: Tensor, target: Tensor, rows: Rows, formula: Formula) -> tuple[Tensor, Tensor]:
    """Return the sum over pixels, NaN for an unknown label, and the logarithms `(B, H, W)` that `gradient` takes.

    `wide` `(B, h, W, C)` are contiguous logits, `rows` tells how they become H rows, `target` is `(B, H, W)`.
    """
    (_, source, width, classes), (batch, height, _) = wide.shape, target.shape
    logarithms = torch.empty(target.shape, device=wide.device, dtype=torch.float32)
    pixels, block = _tile(classes)
    grid = batch * height, triton.cdiv(width, pixels)
    sums = torch.empty(grid, device=wide.device, dtype=torch.float32)
    of_classes = formula.hits, formula.spreads
    with torch.cuda.device_of(wide):
        _loss[grid](
            *(wide, target.contiguous(), rows.above, rows.weight, *of_classes, logarithms, sums),
            *(source, height, width, classes, formula.ignore, pixels, block),
        )
    return sums.sum(), logarithms


def gradient(wide: Tensor, target: Tensor, rows: Rows, formula: Formula, logarithms: Tensor) -> Tensor:
    """Return the gradient of the sum with respect to `wide`."""
    (batch, source, width, classes), height = wide.shape, target.shape[1]
    grad_wide = torch.empty_like(wide)
    pixels, block = _tile(classes)
    grid = batch * source, triton.cdiv(width, pixels)
    of_classes = formula.hits, formula.spreads
    with torch.cuda.device_of(wide):
        _gradient[grid](
            *(wide, target.contiguous(), rows.first, rows.weight, *of_classes, logarithms, grad_wide),
            *(source, height, width, classes, formula.ignore, pixels, block),
        )
    return grad_wide


def _tile(classes: int) -> tuple[int, int]:
    """Return the number of pixels that are computed at a time, and a power of 2 that is no less than `classes`."""
    block = triton.next_power_of_2(classes)
    return max(1, _SCORES // block), block


@triton.jit
def _load_row(wide, image, row, source, x, c, width, classes, known):
    place = ((image * source + row).to(tl.int64) * width + x[:, None]) * classes + c[None, :]
    return tl.load(wide + place, mask=known, other=0.0)


@triton.jit
def _loss(
    wide,
    target,
    above,
    weight,
    hits,
    spreads,
    logarithms,
    sums,
    source,
    height,
    width,
    classes,
    ignore,
    pixels: tl.constexpr,
    of_classes: tl.constexpr,
):
    """Compute the logarithms of `pixels` of a row, and the sum of their losses."""
    row = tl.program_id(0)
    image, y = row // height, row % height
    x = tl.program_id(1) * pixels + tl.arange(0, pixels)
    c = tl.arange(0, of_classes)
    known = (x < width)[:, None] & (c < classes)[None, :]
    upper, share = tl.load(above + y), tl.load(weight + y)
    one = _load_row(wide, image, upper, source, x, c, width, classes, known)
    other = _load_row(wide, image, tl.minimum(upper + 1, source - 1), source, x, c, width, classes, known)
    scores = tl.where((c < classes)[None, :], (1 - share) * one + share * other, -float("inf"))
    here = row.to(tl.int64) * width + x
    label = tl.load(target + here, mask=x < width, other=ignore).to(tl.int32)
    labelled = (label != ignore) & (x < width)
    most = tl.max(scores, axis=1)
    scores -= most[:, None]
    logarithm = tl.log(tl.sum(tl.exp(scores), axis=1))
    is_label = (label[:, None] == c[None, :]) & known
    hit = tl.sum(tl.where(is_label, tl.load(hits + c, mask=c < classes, other=0.0)[None, :], 0.0), axis=1)
    spread = tl.load(spreads + c, mask=c < classes, other=0.0)[None, :]
    spread_scores = tl.where((spread != 0.0) & (c < classes)[None, :], scores * spread, 0.0)  # 0 times -inf is NaN
    linear = tl.sum(tl.where(is_label, scores * hit[:, None], 0.0) + spread_scores, axis=1)
    worth = (hit + tl.sum(spread, axis=1)) * logarithm - linear
    worth = tl.where(label < classes, worth, float("nan"))  # torch's own would stop the process
    tl.store(logarithms + here, most + logarithm, mask=x < width)
    total = tl.sum(tl.where(labelled, worth, 0.0), axis=0)
    tl.store(sums + row * tl.num_programs(1) + tl.program_id(1), total)


@triton.jit
def _add_rows(
    total,
    one,
    other,
    first,
    last,
    weight,
    target,
    hits,
    spread,
    logarithms,
    image,
    height,
    width,
    x,
    c,
    classes,
    ignore,
    share_of_one,
    share_of_other,
):
    """Add the gradients of rows `first` to `last`, which lie between the source rows `one` and `other`."""
    for y in range(first, last):
        share = tl.load(weight + y)
        here = (image * height + y).to(tl.int64) * width + x
        label = tl.load(target + here, mask=x < width, other=ignore).to(tl.int32)
        labelled = ((label != ignore) & (x < width))[:, None]
        is_label = label[:, None] == c[None, :]
        hit = tl.sum(tl.where(is_label, hits[None, :], 0.0), axis=1)
        logarithm = tl.load(logarithms + here, mask=x < width, other=0.0)
        scores = tl.where((c < classes)[None, :], (1 - share) * one + share * other, -float("inf"))
        probability = tl.exp(scores - logarithm[:, None])
        of_pixel = (hit + tl.sum(spread, axis=0))[:, None] * probability
        of_pixel = of_pixel - tl.where(is_label, hit[:, None], 0.0) - spread[None, :]
        factor = share_of_one * (1 - share) + share_of_other * share
        total += tl.where(labelled, factor * of_pixel, 0.0)
    return total


@triton.jit
def _gradient(
    wide,
    target,
    first,
    weight,
    hits,
    spreads,
    logarithms,
    grad_wide,
    source,
    height,
    width,
    classes,
    ignore,
    pixels: tl.constexpr,
    of_classes: tl.constexpr,
):
    """Of `pixels` of a row of logits: from the rows of labels above and below it, as many as it is part of."""
    place = tl.program_id(0)
    image, row = place // source, place % source
    x = tl.program_id(1) * pixels + tl.arange(0, pixels)
    c = tl.arange(0, of_classes)
    known = (x < width)[:, None] & (c < classes)[None, :]
    of_labels = tl.load(hits + c, mask=c < classes, other=0.0)
    spread = tl.load(spreads + c, mask=c < classes, other=0.0)
    here = _load_row(wide, image, row, source, x, c, width, classes, known)
    total = tl.zeros((pixels, of_classes), tl.float32)
    begin, end = tl.load(first + row), tl.load(first + row + 1)
    below = _load_row(wide, image, tl.minimum(row + 1, source - 1), source, x, c, width, classes, known)
    of_last = tl.where(row == source - 1, 1.0, 0.0)  # which is the row below itself
    # fmt: off
    total = _add_rows(total, here, below, begin, end, weight, target, of_labels, spread, logarithms,
                      image, height, width, x, c, classes, ignore, 1.0, of_last)
    begin, end = tl.load(first + tl.maximum(row - 1, 0)), tl.load(first + row)  # none for the first row
    over = _load_row(wide, image, tl.maximum(row - 1, 0), source, x, c, width, classes, known)
    total = _add_rows(total, over, here, begin, end, weight, target, of_labels, spread, logarithms,
                      image, height, width, x, c, classes, ignore, 0.0, 1.0)
    # fmt: on
    out = (place.to(tl.int64) * width + x[:, None]) * classes + c[None, :]
    tl.store(grad_wide + out, total, mask=known)
