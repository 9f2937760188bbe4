"""Evaluation protocols: functions from a network and an image to class scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastfcn_pl.core.types import Box, UserError
from fastfcn_pl.evaluation.score_map import ScoreMap, average_windows, sum_maps
from fastfcn_pl.models.cost import cost
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.ops.interpolate import resize, resize_logits

Size = tuple[int, int]
Protocol = Callable[[Segmenter, Tensor, Size], ScoreMap]
"""Maps a network, normalised images `(B, C, H, W)` and a size `(h, w)` to class scores at that size."""

_MAX_BYTES_PER_INPUT_BYTE = 200
"""Upper bound on a network's memory for each byte of its input; below it, the exact need is not computed."""


def protocol_name(protocol: Protocol) -> str:
    """Return the name that every number of a protocol carries; fused scales or flips are in it."""
    name: str = getattr(protocol, "func", protocol).__name__
    options = protocol_options(protocol)
    if len(options.get("scales", ())) > 1:
        return f"{name}_ms"
    return f"{name}_flip" if options.get("flip") else name


def protocol_options(protocol: Protocol) -> dict[str, Any]:
    """Return the options that a protocol was built with."""
    return dict(getattr(protocol, "keywords", {}))


def logits(model: Segmenter, x: Tensor, size: Size | None = None) -> Tensor:
    """Return logits `(B, num_classes, h, w)` in float32 for normalised images `x`, at `size` or else at `x`'s size."""
    return resize_logits(model(x).logits, size or x.shape[-2:], model.align_corners)


def native(model: Segmenter, x: Tensor, size: Size) -> ScoreMap:
    """Score the whole image at its own size, without scales or flip; resize the logits to the labels' `size`.

    Raises UserError before it starts if the network needs more memory than is free.
    """
    _check_memory(model, x)
    return _whole(model, x, size)


def sliding(model: Segmenter, x: Tensor, size: Size, *, window: int, stride: int) -> ScoreMap:
    """Average logits over windows of `window` x `window` pixels, `stride` apart, of the image at its own size.

    The last window of a row or column is shifted inside the image, so nothing is padded; an image smaller than a
    window is one window. Memory depends on the window and hardly on the image.
    """
    return _windows(model, x, window, stride).resized(size, model.align_corners)


def encoding(
    model: Segmenter, x: Tensor, size: Size, *, base_size: int, crop_size: int, scales: Sequence[float], flip: bool
) -> ScoreMap:
    """Score as the paper does: sum unnormalised exponentials of the logits over windows, flips and scales.

    Follows `MultiEvalModule` in `encoding/models/base.py` of the official code, including its peculiarities:

    1. Resize the image's long side to `base_size * scale`.
    2. Cut it into windows of `crop_size`, 2/3 of that apart. The last window is cut off at the border, not shifted,
       and padded with black at the right and bottom; bands, which have no black, with their mean.
    3. Score a window as `exp(logits)`, or with `flip` as `exp(logits + logits of the flipped window)`.
    4. Average overlapping windows.
    5. Resize the result to `size` and sum it over `scales`.

    Every resize is bilinear with the network's `align_corners`, which is true for the official networks.
    """
    _check_scales(scales)
    if crop_size < 2:
        raise UserError(f"protocol.crop_size={crop_size}: give at least 2 pixels; the paper uses 480")
    black = [-mean / std for mean, std in zip(model.backbone.mean, model.backbone.std, strict=True)]
    fill = black if model.takes_rgb else [0.0] * model.in_chans  # the mean of bands, as in training
    blank = x.new_tensor(fill).view(1, -1, 1, 1).repeat(len(x), 1, crop_size, crop_size)

    def score(image: Tensor, box: Box) -> ScoreMap:
        window = blank.clone()
        window[..., : box.height, : box.width] = _crop(image, box)
        scores = _whole(model, window)
        if flip:
            scores = sum_maps([scores, _whole(model, window.flip(-1)).flipped()])
        return scores.cropped(box.height, box.width).apply(torch.exp, logits=False)

    maps = []
    for scale in scales:
        image = resize(x, _with_long_side(x, math.ceil(base_size * scale)), model.align_corners)
        height, width = _size(image)
        boxes = _boxes(image, crop_size, crop_size * 2 // 3)
        shape = (len(x), height, width, model.num_classes)
        scores = average_windows(shape, x.device, boxes, partial(score, image), logits=False)
        maps.append(scores.resized(size, model.align_corners))
    return sum_maps(maps)


def mmseg(
    model: Segmenter, x: Tensor, size: Size, *, long_side: int, short_side: int, scales: Sequence[float], flip: bool
) -> ScoreMap:
    """Score as mmsegmentation's mode `whole`: resize the image to fit into both `long_side` and `short_side`.

    Logits are resized to the resized image, then to the labels' `size`. With several `scales` of both sides, or with
    `flip`, their softmax is averaged. This is `MultiScaleFlipAug` of the 0.x releases, the source of the published
    multi-scale scores; `TestTimeAug` of 1.x scales the image's own size. The resized image is not rounded to 8 bits.
    """
    return _mmseg(model, x, size, long_side, short_side, scales, flip, partial(_whole, model))


def mmseg_slide(
    model: Segmenter,
    x: Tensor,
    size: Size,
    *,
    long_side: int,
    short_side: int,
    window: int,
    stride: int,
    scales: Sequence[float],
    flip: bool,
) -> ScoreMap:
    """Score as mmsegmentation's mode `slide`: like `mmseg`, but run windows of the resized image as in `sliding`."""
    score = partial(_windows, model, window=window, stride=stride)
    return _mmseg(model, x, size, long_side, short_side, scales, flip, score)


def _whole(model: Segmenter, x: Tensor, size: Size | None = None) -> ScoreMap:
    """Run the network and return its logits at `size`, or else at `x`'s size."""
    with torch.no_grad():
        return ScoreMap.of(model(x).logits).resized(size or _size(x), model.align_corners)


def _windows(model: Segmenter, x: Tensor, window: int, stride: int) -> ScoreMap:
    """Return logits of `x`, averaged over windows that lie inside it."""
    if not 1 <= stride <= window:
        raise UserError(f"protocol.stride={stride}: give 1 to protocol.window={window}, so that no pixel is left out")
    height, width = _size(x)
    boxes = [
        Box(max(box.right - window, 0), max(box.bottom - window, 0), box.right, box.bottom)
        for box in _boxes(x, window, stride)
    ]
    shape = (len(x), height, width, model.num_classes)
    return average_windows(shape, x.device, boxes, lambda box: _whole(model, _crop(x, box)), logits=True)


def _mmseg(
    model: Segmenter,
    x: Tensor,
    size: Size,
    long_side: int,
    short_side: int,
    scales: Sequence[float],
    flip: bool,
    score: Callable[[Tensor], ScoreMap],
) -> ScoreMap:
    _check_scales(scales)
    maps = []
    for scale in scales:
        image = resize(x, _within(x, int(long_side * scale), int(short_side * scale)), align_corners=False)
        maps.append(score(image).resized(size, model.align_corners))
        if flip:
            maps.append(score(image.flip(-1)).resized(size, model.align_corners).flipped())
    if len(maps) == 1:
        return maps[0]
    return sum_maps([m.apply(lambda scores: scores.softmax(-1) / len(maps), logits=False) for m in maps])


def _check_scales(scales: Sequence[float]) -> None:
    if not scales or min(scales) <= 0:
        raise UserError(f"protocol.scales={list(scales)}: give at least one, all above 0")


def _size(x: Tensor) -> Size:
    return x.shape[-2], x.shape[-1]


def _with_long_side(x: Tensor, length: int) -> Size:
    """Return the size of `x` after resizing its long side to `length`."""
    height, width = _size(x)
    if height > width:
        return length, int(1.0 * width * length / height + 0.5)
    return int(1.0 * height * length / width + 0.5), length


def _within(x: Tensor, long: int, short: int) -> Size:
    """Return the largest size that keeps `x`'s aspect ratio and fits into the sides `long` and `short`."""
    factor = min(long / max(_size(x)), short / min(_size(x)))
    return int(x.shape[-2] * factor + 0.5), int(x.shape[-1] * factor + 0.5)


def _boxes(x: Tensor, window: int, stride: int) -> list[Box]:
    """Return windows, `stride` apart, that cover `x`; the last ones are cut off at its border."""
    spans = []
    for length in _size(x):
        count = max(math.ceil((length - window) / stride), 0) + 1
        spans.append([(start, min(start + window, length)) for start in range(0, count * stride, stride)])
    return [Box(left, top, right, bottom) for (top, bottom), (left, right) in product(*spans)]


def _crop(x: Tensor, box: Box) -> Tensor:
    return x[..., box.top : box.bottom, box.left : box.right]


def _check_memory(model: Segmenter, x: Tensor) -> None:
    """Raise UserError if running the network on `x` needs more memory than is free."""
    free = _free_memory(x.device)
    if x.nbytes * _MAX_BYTES_PER_INPUT_BYTE < free:
        return
    height, width = x.shape[-2:]
    need = len(x) * cost(model, (height, width))["total"].peak_mib * 2**20
    if x.is_cuda and torch.is_autocast_enabled("cuda"):
        need /= 2
    if need > free:
        raise UserError(
            f"protocol=native needs about {need / 2**30:.3g} GiB for an image of {height}x{width}, but only "
            f"{free / 2**30:.3g} GiB are free on {x.device}: use protocol=sliding"
        )


def _free_memory(device: torch.device) -> float:
    """Return the free bytes on `device`, or infinity if unknown."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.is_file() and device.type == "cpu" else []
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kibibytes[0] * 2**10 if kibibytes else math.inf
