"""Cross entropy of upsampled logits, of which only a band of rows exists at a time.

Bilinear interpolation is a product with a matrix for columns and one for rows, and its gradient is a product with the
transposed matrices. The loss is a scalar, so that the gradient of a band is known with its value, up to one factor.
Both are computed in the forward pass, and nothing of the label's size is kept for the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.ops import triton_support
from fastfcn_pl.ops.double_backward import double_backward
from fastfcn_pl.ops.fast_paths import is_enabled
from fastfcn_pl.ops.interpolate import interpolation, resize, resized_rows

_BAND = {"cpu": 2**20, "cuda": 2**24}
"""Scores of a band by device: 8 to 16 rows are fastest on a CPU, and a GPU needs more to be busy."""


def upsampled_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor | None, label_smoothing: float, align_corners: bool
) -> Tensor:
    """Return the sum over labelled pixels of the cross entropy of `logits` `(B, C, h, w)` at the size of `target`.

    `target` is `(B, H, W)`, `weights` `(C,)`. The result is that of `F.interpolate` and `F.cross_entropy`, in float32
    at least. Logits may be NaN under ignored pixels, and -inf for a class that is masked. See experiments/speed/.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    formula = _Formula(None if weights is None else weights.to(logits), label_smoothing)
    by_kernels = is_enabled("triton cross entropy") and logits.dtype == torch.float32 and triton_support.runs_on(logits)
    by_bands = is_enabled("banded cross entropy")
    if not by_kernels and logits.device.type == "cpu":  # on a GPU without kernels, asking would wait for it
        by_bands = by_bands and bool(logits.isfinite().all())  # which a product with a matrix would spread
    if not by_kernels and not by_bands:
        return _reference(logits, target, formula, align_corners)
    total: Tensor = (_ByKernels if by_kernels else _ByBands).apply(logits, target, formula, align_corners)
    return total


def _reference(logits: Tensor, target: Tensor, formula: _Formula, align_corners: bool) -> Tensor:
    """Return the same by torch's own operations, which upsample the logits as a whole."""
    full = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=align_corners)
    options: Any = {"ignore_index": IGNORE, "reduction": "sum", "label_smoothing": formula.smoothing}
    return F.cross_entropy(full, target.long(), formula.weights, **options)


@dataclass(frozen=True)
class _Formula:
    """The loss of labelled pixels as `F.cross_entropy` defines it, and its gradient.

    The loss of a pixel with scores x and label t is `hit * (log sum exp x - x_t)` plus, for each class c,
    `spread_c * (log sum exp x - x_c)`. Here `hit` is the weight of t times `1 - smoothing`, and `spread_c` is the
    weight of c times `smoothing / classes`.
    """

    weights: Tensor | None
    smoothing: float

    def __call__(self, scores: Tensor, labels: Tensor, with_gradient: bool) -> Tensor:
        """Return the sum over pixels of `scores` `(..., C)`, which are overwritten with the gradient if asked."""
        labelled = (labels != IGNORE).unsqueeze(-1)
        labels = labels.long().unsqueeze(-1).masked_fill(~labelled, 0)
        hit = labelled.to(scores.dtype) * (1 - self.smoothing)
        if self.weights is not None:
            hit = hit * self.weights[labels]
        scores -= scores.amax(-1, keepdim=True)
        share, linear = hit, hit * scores.gather(-1, labels)
        if self.smoothing:
            spread = scores.new_full(scores.shape[-1:], self.smoothing / scores.shape[-1])
            spread = spread if self.weights is None else spread * self.weights
            share, linear = hit + labelled * spread.sum(), linear + labelled * (scores @ spread).unsqueeze(-1)
        sums = scores.exp_().sum(-1, keepdim=True)
        if with_gradient:
            scores *= share / sums
            scores.scatter_add_(-1, labels, -hit)
            if self.smoothing:
                scores -= labelled * spread
        return (share * sums.log() - linear).sum()


def _plain(ctx: Any) -> tuple[Tensor, list[Tensor | None]]:
    logits, _ = ctx.saved_tensors
    return _reference(logits, ctx.target, ctx.formula, ctx.align_corners), [logits, None, None, None]


class _WithGradient(torch.autograd.Function):
    """A loss whose forward pass saves the gradient of its logits, `(B, h, w, C)`."""

    @staticmethod
    @double_backward(_plain)
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None, None]:
        _, gradient = ctx.saved_tensors
        return factor * gradient.permute(0, 3, 1, 2), None, None, None


def _save(
    ctx: Any, logits: Tensor, gradient: Tensor | None, target: Tensor, formula: _Formula, align_corners: bool
) -> None:
    """Save the gradient `(B, h, w, C)` for the backward pass, and its inputs for one of second order."""
    ctx.save_for_backward(logits, gradient)
    ctx.target, ctx.formula, ctx.align_corners = target, formula, align_corners


class _ByBands(_WithGradient):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, formula: _Formula, align_corners: bool) -> Tensor:
        (_, classes, source, source_width), (height, width) = logits.shape, target.shape[-2:]
        pixels = logits.permute(0, 2, 3, 1).contiguous()  # classes last
        gradient = torch.zeros_like(pixels) if ctx.needs_input_grad[0] else None
        options = align_corners, logits.dtype, logits.device
        columns, across = interpolation(range(width), source_width, width, *options)
        wide = width == source_width  # already
        step = max(1, _BAND.get(logits.device.type, _BAND["cuda"]) // (width * classes))
        totals = [logits.new_zeros(())]
        for top in range(0, height, step):
            rows = range(top, min(top + step, height))
            needed, down = interpolation(rows, source, height, *options)
            here = slice(rows.start, rows.stop)
            there = slice(needed.start, needed.stop), slice(columns.start, columns.stop)
            for i, image in enumerate(pixels[:, *there]):
                with torch.autocast(logits.device.type, enabled=False):
                    widened = image if wide else across @ image
                    scores = (down @ widened.flatten(1)).view(len(rows), width, classes)
                    totals.append(formula(scores, target[i, here], gradient is not None))
                    if gradient is not None:
                        back = (down.T @ scores.flatten(1)).view(len(needed), width, classes)
                        gradient[i, *there] += back if wide else across.T @ back
        _save(ctx, logits, gradient, target, formula, align_corners)
        return torch.stack(totals).sum()


class _ByKernels(_WithGradient):
    """The same by a few kernels on a GPU."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, formula: _Formula, align_corners: bool) -> Tensor:
        import fastfcn_pl.ops.upsampled_cross_entropy_triton as kernels  # triton may not be installed

        (_, classes, source, source_width), (height, width) = logits.shape, target.shape[-2:]
        weights = logits.new_ones(classes) if formula.weights is None else formula.weights
        shares = weights * (1 - formula.smoothing), weights * (formula.smoothing / classes)
        of_classes = kernels.Formula(*shares, ignore=IGNORE)
        rows = resized_rows(source, height, align_corners, logits.device)
        wide = resize(logits.contiguous(memory_format=torch.channels_last), (source, width), align_corners)
        wide = wide.permute(0, 2, 3, 1).contiguous()
        total, logarithms = kernels.loss(wide, target, rows, of_classes)
        if ctx.needs_input_grad[0]:
            gradient = kernels.gradient(wide, target, rows, of_classes, logarithms)
            if width != source_width:
                options = align_corners, logits.dtype, logits.device
                columns, across = interpolation(range(width), source_width, width, *options)
                with torch.autocast(logits.device.type, enabled=False):
                    narrow = across.T @ gradient
                unused = columns.start, source_width - columns.stop
                gradient = F.pad(narrow, (0, 0, *unused)) if any(unused) else narrow
            _save(ctx, logits, gradient, target, formula, align_corners)
        return total
