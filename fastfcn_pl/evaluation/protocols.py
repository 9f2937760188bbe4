"""From a network and an image to scores: pure functions, each an evaluation protocol by its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from fastfcn_pl.core.types import UserError
from fastfcn_pl.evaluation.score_map import Box, ScoreMap, mosaic, total
from fastfcn_pl.models.cost import cost
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.ops.interpolate import resize, resize_logits

Size = tuple[int, int]
Protocol = Callable[[Segmenter, Tensor, Size], ScoreMap]
"""A network, normalised images `(B, 3, H, W)` and a size `(h, w)` to the scores of all classes at that size."""

_MORE_THAN_ANY = 200
"""No network of ours needs as many bytes for each byte of its input: counting what it needs can be left out."""


def logits(model: Segmenter, x: Tensor, size: Size | None = None) -> Tensor:
    """Return logits `(B, num_classes, h, w)` in float32 for normalised images `x`; `size` is `x`'s where not given."""
    return resize_logits(model(x).logits, size or x.shape[-2:], model.align_corners)


def native(model: Segmenter, x: Tensor, size: Size) -> ScoreMap:
    """Whole image at its own size, single scale, no flip; logits resized to the label's `size`.

    Raises UserError, before it begins, where the network needs more memory for that than there is.
    """
    _check_memory(model, x)
    return _whole(model, x, size)


def sliding(model: Segmenter, x: Tensor, size: Size, *, window: int, stride: int) -> ScoreMap:
    """Windows of `window` x `window` pixels, a `stride` apart, of the image at its own size; logits averaged over them.

    The last window of a row or column is moved inside the image, and the whole image is one where it is smaller; so
    nothing is padded. Memory grows with the window, hardly with the image.
    """
    return _windows(model, x, window, stride).resized(size, model.align_corners)


def encoding(
    model: Segmenter, x: Tensor, size: Size, *, base_size: int, crop_size: int, scales: Sequence[float], flip: bool
) -> ScoreMap:
    """The paper's: scores fused as exponentials that are not normalised, in float32.

    Faithful to `MultiEvalModule` in `encoding/models/base.py` of the official code, also where others do otherwise:

    1. The image's long side is resized to `base_size * scale`.
    2. It is cut into windows of `crop_size`, 2/3 of that apart. The last one is cut off at the border, not moved, and
       what is smaller than a window is padded with black at the right and at the bottom.
    3. A window's score is `exp(logits)`, with `flip` `exp(logits + those of the mirrored window)`: not normalised.
    4. Overlapping windows are averaged.
    5. The result is resized to `size`, and summed over `scales`.

    Every resize is bilinear with the network's `align_corners`, which is true for the official ones.
    """
    _check_scales(scales)
    if crop_size < 2:
        raise UserError(f"protocol.crop_size={crop_size}: a window is 2 pixels wide at least; the paper's are 480")
    black = [-mean / std for mean, std in zip(model.backbone.mean, model.backbone.std, strict=True)]
    empty = x.new_tensor(black).view(1, 3, 1, 1).repeat(len(x), 1, crop_size, crop_size)

    def score(image: Tensor, box: Box) -> ScoreMap:
        window = empty.clone()
        window[..., : box.size[0], : box.size[1]] = _cut(image, box)
        found = _whole(model, window)
        if flip:
            found = total([found, _whole(model, window.flip(-1)).mirrored()])
        return found.cropped(*box.size).apply(torch.exp, logits=False)

    maps = []
    for scale in scales:
        image = resize(x, _with_long_side(x, math.ceil(base_size * scale)), model.align_corners)
        height, width = _size(image)
        boxes = _boxes(image, crop_size, crop_size * 2 // 3)
        shape = (len(x), height, width, model.num_classes)
        found = mosaic(shape, x.device, boxes, partial(score, image), logits=False)
        maps.append(found.resized(size, model.align_corners))
    return total(maps)


def mmseg(
    model: Segmenter, x: Tensor, size: Size, *, long_side: int, short_side: int, scales: Sequence[float], flip: bool
) -> ScoreMap:
    """mmsegmentation's, mode `whole`: the image as large as fits into both `long_side` and `short_side`.

    Logits are resized to the resized image, then to the label's `size`. Several `scales` of both sides, or `flip`,
    average the softmax of these. That is `MultiScaleFlipAug` of the 0.x releases, which the published multi-scale
    scores are from; `TestTimeAug` of 1.x scales the image's own size. The resized image is not rounded to 8 bits.
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
    """mmsegmentation's, mode `slide`: `mmseg`, with the resized image seen in windows as in `sliding`."""
    score = partial(_windows, model, window=window, stride=stride)
    return _mmseg(model, x, size, long_side, short_side, scales, flip, score)


def _whole(model: Segmenter, x: Tensor, size: Size | None = None) -> ScoreMap:
    """Run the network and return its logits at `size`, which is `x`'s where not given."""
    with torch.no_grad():
        return ScoreMap.of(model(x).logits).resized(size or _size(x), model.align_corners)


def _windows(model: Segmenter, x: Tensor, window: int, stride: int) -> ScoreMap:
    """Return logits of `x`, averaged over windows that lie inside of it."""
    if not 1 <= stride <= window:
        raise UserError(f"protocol.stride={stride}: between 1 and protocol.window={window}, no pixel is left out")
    height, width = _size(x)
    boxes = [
        Box(max(box.bottom - window, 0), box.bottom, max(box.right - window, 0), box.right)
        for box in _boxes(x, window, stride)
    ]
    shape = (len(x), height, width, model.num_classes)
    return mosaic(shape, x.device, boxes, lambda box: _whole(model, _cut(x, box)), logits=True)


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
            maps.append(score(image.flip(-1)).resized(size, model.align_corners).mirrored())
    if len(maps) == 1:
        return maps[0]
    return total([m.apply(lambda scores: scores.softmax(-1) / len(maps), logits=False) for m in maps])


def _check_scales(scales: Sequence[float]) -> None:
    if not scales or min(scales) <= 0:
        raise UserError(f"protocol.scales={list(scales)}: name one at least, and only ones above 0")


def _size(x: Tensor) -> Size:
    return x.shape[-2], x.shape[-1]


def _with_long_side(x: Tensor, length: int) -> Size:
    """Return the size of `x` with its long side resized to `length`."""
    height, width = _size(x)
    if height > width:
        return length, int(1.0 * width * length / height + 0.5)
    return int(1.0 * height * length / width + 0.5), length


def _within(x: Tensor, long: int, short: int) -> Size:
    """Return the largest size of `x` whose long side is at most `long`, and its short side at most `short`."""
    factor = min(long / max(_size(x)), short / min(_size(x)))
    return int(x.shape[-2] * factor + 0.5), int(x.shape[-1] * factor + 0.5)


def _boxes(x: Tensor, window: int, stride: int) -> list[Box]:
    """Return the windows, a `stride` apart, that cover `x`; the last ones are cut off at its border."""
    spans = []
    for length in _size(x):
        count = max(math.ceil((length - window) / stride), 0) + 1
        spans.append([(start, min(start + window, length)) for start in range(0, count * stride, stride)])
    return [Box(*rows, *columns) for rows, columns in product(*spans)]


def _cut(x: Tensor, box: Box) -> Tensor:
    return x[..., box.top : box.bottom, box.left : box.right]


def _check_memory(model: Segmenter, x: Tensor) -> None:
    """Raise UserError where running the network on `x` takes more memory than there is."""
    free = _free_memory(x.device)
    if x.nbytes * _MORE_THAN_ANY < free:
        return
    height, width = x.shape[-2:]
    need = len(x) * cost(model, (height, width))["total"].peak_mib * 2**20
    if x.is_cuda and torch.is_autocast_enabled("cuda"):
        need /= 2
    if need > free:
        raise UserError(
            f"protocol=native needs about {need / 2**30:.3g} GiB to see an image of {height}x{width} at once, but "
            f"{free / 2**30:.3g} GiB are free on {x.device}: use protocol=sliding"
        )


def _free_memory(device: torch.device) -> float:
    """Return the bytes that are free on `device`, infinity where that is not known."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.is_file() and device.type == "cpu" else []
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kibibytes[0] * 2**10 if kibibytes else math.inf
