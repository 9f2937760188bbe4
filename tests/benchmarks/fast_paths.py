"""The fast paths of the package, and how a benchmark switches each of them off.

What is built and run while a path is off takes the plain way in its place, and the fast one everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader

from fastfcn_pl.data.transforms import image_ops
from fastfcn_pl.ops.fast_paths import without
from tests.benchmarks import commands, data

resize_region = image_ops.resize_region


@dataclass(frozen=True)
class FastPath:
    """A fast path: its `name`, the `condition` on which it is taken, and a context in which it is `off`."""

    name: str
    condition: str
    off: Callable[[], AbstractContextManager[object]]


def replaced(name: str, value: Any) -> Callable[[], AbstractContextManager[object]]:
    """Return a context in which `value` replaces the function `name` of the package."""
    return partial(patch, f"fastfcn_pl.{name}", value)


def nothing(*args: object) -> None:
    """Return None, as functions do that leave a file or a table to the plain way."""


class _WholeScores:
    """Scores of a whole image at once, by torch's own functions."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits

    def resized(self, size: tuple[int, int], align_corners: bool) -> _WholeScores:
        return _WholeScores(F.interpolate(self._logits.float(), size, mode="bilinear", align_corners=align_corners))

    def labels(self) -> Tensor:
        return self._logits.argmax(1)


def _region_of_whole(image: np.ndarray, size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = box
    return resize_region(image, size, (0, 0, *size))[top:bottom, left:right]


def _region_by_pillow(image: np.ndarray, size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    (height, width), (left, top, right, bottom) = image.shape[:2], box
    x, y = width / size[0], height / size[1]
    source = left * x, top * y, min(right * x, width), min(bottom * y, height)
    resized = Image.fromarray(image).resize((right - left, bottom - top), Image.Resampling.BILINEAR, source)
    return np.asarray(resized)


def _blurred_by_pillow(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def _taken_by_index(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return mask[rows[:, None], columns]


def _floats(*args: Any) -> data.Contender:
    return data.normalised(data.ours(*args))


def _new_workers(*args: Any, persistent_workers: bool, **options: Any) -> DataLoader[Any]:
    return DataLoader(*args, **options)


FOLD = FastPath("folded batch norms", "prediction", partial(without, "fold"))
PACK = FastPath(
    "prepacked convolutions with activations inside",
    "prediction on a CPU, in bfloat16 if it has that",
    partial(without, "packed convolution"),
)
WINOGRAD = FastPath(
    "Winograd", "prediction on a CPU in float32, wide 3x3 convolutions of stride 1", partial(without, "winograd")
)
LOSS = FastPath(
    "cross entropy by bands, on a GPU by kernels",
    "training",
    partial(without, "banded cross entropy", "triton cross entropy"),
)
LOSS_KERNELS = FastPath("cross entropy by kernels", "training on a GPU", partial(without, "triton cross entropy"))
DEPTHWISE = FastPath(
    "kernels for dilated depthwise convolutions", "channels_last on a GPU", partial(without, "triton depthwise")
)
PHASES = FastPath(
    "dilated depthwise convolutions by phases",
    "channels_last on a CPU in float32",
    partial(without, "phased depthwise"),
)
RELU = FastPath("ReLU inside of a convolution", "prediction on a GPU", partial(without, "fused relu"))
GRAPH = FastPath("CUDA graph", "prediction on a GPU, after 8 images of one size", partial(without, "cuda graph"))
CAST = FastPath(
    "weights cast once", "prediction in half precision", replaced("acceleration.inference._cast_weights", nothing)
)
CHANNELS_LAST = FastPath(
    "channels_last in training",
    "training, if every gradient is right in it",
    replaced("acceleration.training.memory_format", lambda channels_last: torch.contiguous_format),
)
BANDS = FastPath(
    "labels by bands of rows", "prediction and scoring", replaced("evaluation.score_map.ScoreMap.of", _WholeScores)
)
PNG = FastPath("masks by imagecodecs", "PNGs of 8 bits", replaced("data.io.image_files.decode_ids", nothing))
PALETTE = FastPath(
    "masks inflated only",
    "PNGs with a palette and unfiltered rows",
    replaced("data.io.png._decode_unfiltered", nothing),
)
REGION = FastPath(
    "resize of the crop alone",
    "augmentation",
    replaced("data.transforms.geometric_plan.resize_region", _region_of_whole),
)
RESIZE = FastPath(
    "resize by OpenCV and torch",
    "augmentation; Pillow's in its place",
    replaced("data.transforms.geometric_plan.resize_region", _region_by_pillow),
)
BLUR = FastPath(
    "blur by OpenCV",
    "augmentation; Pillow's in its place",
    replaced("data.transforms.geometric.gaussian_blur", _blurred_by_pillow),
)
TAKEN = FastPath(
    "masks resized by whole rows", "augmentation", replaced("data.transforms.geometric_plan.select", _taken_by_index)
)
BYTES = FastPath(
    "8 bits to the device, which normalises",
    "each image",
    partial(patch.object, commands, "ours", _floats),
)
CACHE = FastPath(
    "cache of decoded images",
    "data.loader.cache=<folder>",
    replaced("data.datamodule.CachedSource", lambda source, folder: source),
)
WORKERS = FastPath(
    "workers that outlive an epoch",
    "data.loader.persistent_workers, automatic",
    replaced("data.datamodule.DataLoader", _new_workers),
)
START = FastPath(
    "imports after the configuration is known",
    "each command",
    partial(patch.object, commands, "IMPORTED_FIRST", "fastfcn_pl.config.build"),
)
ALL = [path for path in list(globals().values()) if isinstance(path, FastPath)]
