"""Interpolation of feature maps and logits."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Return `x` `(B, C, h, w)` bilinearly interpolated to `(B, C, *size)`; `x` itself if it has that size."""
    if _same(tuple(x.shape[-2:]), tuple(size)):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)


def _same(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Tell whether two sizes are equal; during `torch.export`, whose sizes are symbols, whether they always are."""
    if not torch.compiler.is_exporting():
        return one == other
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # imports sympy

    # Comparing symbols would restrict the file to images whose sizes compare in the same way.
    return all(statically_known_true(a == b) for a, b in zip(one, other, strict=True))


def resize_logits(logits: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Return `logits` `(B, C, h, w)` at `size`, in float32 at least, also after autocast."""
    return resize(logits if logits.dtype == torch.float64 else logits.float(), size, align_corners)


def source_rows(rows: range, source: int, target: int, align_corners: bool) -> range:
    """Return the source rows from which `rows` of an image are interpolated, when `source` rows become `target`."""
    above, _ = _coordinates(rows, source, target, align_corners)
    return range(int(above[0]), min(int(above[-1]) + 2, source))


def resize_rows(x: Tensor, rows: range, source: int, target: int, width: int, align_corners: bool) -> Tensor:
    """Return `rows` of an image of `source` rows resized to `(target, width)`, equal to those of the whole by `resize`.

    `x` `(B, n, w, C)` is the image's `source_rows`. The result is `(B, len(rows), width, C)`, and contiguous on a CPU.
    """
    if x.device.type != "cpu":
        return _resize_rows_of_gpu(x.permute(0, 3, 1, 2), rows, source, target, width, align_corners)
    above, weight = _coordinates(rows, source, target, align_corners)
    x = resize(x.permute(0, 3, 1, 2), (x.shape[1], width), align_corners).permute(0, 2, 3, 1)
    weight = weight.to(x)[:, None, None]
    out, first = x.new_empty(len(x), len(rows), *x.shape[2:]), 0
    # All rows between the same two source rows at once: gathering these for each row costs more than all the rest.
    for row, count in zip(*(v.tolist() for v in torch.unique_consecutive(above, return_counts=True)), strict=True):
        i, end = row - int(above[0]), first + count
        pair = x[:, i : i + 1], x[:, min(i + 1, x.shape[1] - 1)][:, None]
        torch.lerp(*pair, weight[first:end], out=out[:, first:end])
        first = end
    return out


def _resize_rows_of_gpu(x: Tensor, rows: range, source: int, target: int, width: int, align_corners: bool) -> Tensor:
    """Return the same from `(B, C, n, w)`, and keep that order in memory: an argmax over classes is faster in it."""
    if len(rows) == target:
        return resize(x, (target, width), align_corners).permute(0, 2, 3, 1)
    above, weight = _coordinates(rows, source, target, align_corners)
    x = resize(x, (x.shape[2], width), align_corners)
    i = (above - above[0]).to(x.device)
    below = (i + 1).clamp(max=x.shape[2] - 1)
    return torch.lerp(x[:, :, i], x[:, :, below], weight.to(x)[:, None]).permute(0, 2, 3, 1)


@functools.lru_cache(maxsize=256)  # each copy to a GPU waits for all of its work
def interpolation(
    rows: range, source: int, target: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> tuple[range, Tensor]:
    """Return the `source_rows` of `rows`, and the matrix `(len(rows), n)` whose product with those n rows are `rows`.

    The matrix must not be changed.
    """
    above, weight = _coordinates(rows, source, target, align_corners, dtype)
    first, last = int(above[0]), min(int(above[-1]) + 1, source - 1)
    matrix, i = torch.zeros(len(rows), last + 1 - first, dtype=dtype), torch.arange(len(rows))
    matrix[i, above - first] = 1 - weight
    matrix[i, (above + 1).clamp(max=last) - first] += weight
    return range(first, last + 1), matrix.to(device)


@dataclass(frozen=True)
class Rows:
    """Sources of the rows of a resized image: the source row `above`, and the one below that by its `weight`.

    `above` is `(target,)` int32 and `weight` `(target,)` float32. `first` `(source + 1,)` int32 holds for each source
    row the first row that it or a later source row is above.
    """

    above: Tensor
    weight: Tensor
    first: Tensor


@functools.lru_cache(maxsize=256)
def resized_rows(source: int, target: int, align_corners: bool, device: torch.device) -> Rows:
    """Return the sources of `target` rows among `source` rows, on `device`."""
    above, weight = _coordinates(range(target), source, target, align_corners)
    first = torch.searchsorted(above, torch.arange(source + 1))
    return Rows(above.int().to(device), weight.to(device), first.int().to(device))


def _coordinates(
    rows: range, source: int, target: int, align_corners: bool, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return for each of `rows` the source row above it, and the weight of the one below that.

    torch computes them in float32, except for tensors of float64 (`dtype`).
    """
    i = torch.arange(rows.start, rows.stop, dtype=dtype)
    centred = ((i + 0.5) * (source / target) - 0.5).clamp(min=0)
    y = i * ((source - 1) / max(target - 1, 1)) if align_corners else centred
    above = y.floor().clamp(max=source - 1)
    return above.long(), (y - above).clamp(max=1)
