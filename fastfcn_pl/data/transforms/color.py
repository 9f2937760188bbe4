"""Colour steps: transforms of torchvision v2 that YAML names, at the end of an augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from fastfcn_pl.core.types import UserError

_KEY = "data.augmentation.color"
_CONTAINERS = (v2.Compose, v2.RandomApply, v2.RandomChoice, v2.RandomOrder)
_COLOR = (
    *(v2.ColorJitter, v2.GaussianBlur, v2.GaussianNoise, v2.Grayscale, v2.RandomAdjustSharpness, v2.RandomAutocontrast),
    *(v2.RandomChannelPermutation, v2.RandomEqualize, v2.RandomGrayscale, v2.RandomInvert, v2.RandomPhotometricDistort),
    *(v2.RandomPosterize, v2.RandomSolarize),
)
"""Transforms that leave every pixel in its place."""
_WHOLE = slice(None), slice(None)


class ColorSteps:
    """Transforms of torchvision v2 that change colours only, one after the other.

    They draw from torch's global generator, which is seeded for each image by a draw from its own and restored after.
    Raises UserError for a transform of another kind, or with values that it cannot use.
    """

    def __init__(self, steps: Sequence[v2.Transform]) -> None:
        if not isinstance(steps, (list, tuple)):
            raise UserError(f"{_KEY}={steps}: give a list of transforms, [] for none")
        self.steps = {f"{_KEY}.{position}": step for position, step in enumerate(steps)}
        with _reproducible(0):
            for key, step in self.steps.items():
                _check(key, step)

    def __call__(
        self, image: np.ndarray, rng: np.random.Generator, visible: tuple[slice, slice] = _WHOLE
    ) -> np.ndarray:
        """Return the image `(H, W, 3)` with new colours in its `visible` rows and columns; the rest is padding."""
        if not self.steps:
            return image
        planes = np.moveaxis(image, -1, 0).copy()
        shown = torch.from_numpy(planes)[:, *visible]
        with _reproducible(int(rng.integers(2**63))):
            changed = shown.contiguous()
            for key, step in self.steps.items():
                changed = _apply(step, changed, f"{key}: {type(step).__name__}")
        shown.copy_(changed)
        return np.moveaxis(planes, 0, -1)


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU and use one thread, since sums depend on their number; restore both afterwards.

    `torch.manual_seed` would seed GPUs, too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _check(key: str, step: Any) -> None:
    """Raise UserError unless `step` changes colours only; a transform that acts at random is tried for certain."""
    if isinstance(step, _CONTAINERS):
        for position, inner in enumerate(step.transforms):
            _check(f"{key}.transforms.{position}", inner)
        return
    place = f"{key}: {type(step).__name__}"
    if not isinstance(step, _COLOR):
        names = ", ".join(known.__name__ for known in (*_COLOR, *_CONTAINERS))
        raise UserError(
            f"{place} is none of torchvision.transforms.v2's transforms that change colours only: use {names}; other "
            "keys of data.augmentation scale, crop and flip, and images are normalised later"
        )
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    changed = _apply(lambda tensor: step.transform(tensor, step.make_params([tensor])), image, place)
    if (changed.shape, changed.dtype) != (image.shape, image.dtype):
        kind = f"{changed.dtype} {tuple(changed.shape)}"
        raise UserError(f"{place} makes {kind} of {image.dtype} {tuple(image.shape)}: set it to keep both")


def _apply(step: Callable[[Tensor], Tensor], image: Tensor, place: str) -> Tensor:
    try:
        return step(image)
    except (RuntimeError, TypeError, ValueError) as error:
        height, width = image.shape[1:]
        raise UserError(f"{place} fails for an image of {width}x{height} ({error}): change or remove it") from error
