"""Colour steps: transforms of torchvision v2 that YAML names, at the end of an augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from fastfcn_pl.core.types import Bands, UserError

_KEY = "data.augmentation.color"
_CONTAINERS = (v2.Compose, v2.RandomApply, v2.RandomChoice, v2.RandomOrder)
_COLOR = (
    *(v2.ColorJitter, v2.GaussianBlur, v2.GaussianNoise, v2.Grayscale, v2.RandomAdjustSharpness, v2.RandomAutocontrast),
    *(v2.RandomChannelPermutation, v2.RandomEqualize, v2.RandomGrayscale, v2.RandomInvert, v2.RandomPhotometricDistort),
    *(v2.RandomPosterize, v2.RandomSolarize),
)
"""Transforms that leave every pixel in its place."""
_RGB = (v2.Grayscale, v2.RandomChannelPermutation, v2.RandomGrayscale, v2.RandomPhotometricDistort)
"""Those of them for which channels are red, green and blue."""
_BYTES = (v2.RandomEqualize, v2.RandomPosterize)
"""Those for 8 bits."""
_SPREAD = 3
"""Standard deviations of a band below and above its mean that are its darkest and its lightest level."""
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
            for place, step in _leaves(self.steps):
                _check(place, step)

    def for_bands(self, bands: Bands) -> ColorSteps:
        """Return these steps for images with `bands`; raises UserError for a step that is for RGB or 8 bits only."""
        return BandColorSteps(self.steps, bands) if self.steps else self

    def __call__(
        self, image: np.ndarray, rng: np.random.Generator, visible: tuple[slice, slice] = _WHOLE
    ) -> np.ndarray:
        """Return the image `(H, W, 3)` with new colours in its `visible` rows and columns; the rest is padding."""
        if not self.steps:
            return image
        planes = np.moveaxis(image, -1, 0).copy()
        shown = torch.from_numpy(planes)[:, *visible]
        shown.copy_(self._change(shown.contiguous(), rng))
        return np.moveaxis(planes, 0, -1)

    def _change(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        with _reproducible(int(rng.integers(2**63))):
            for key, step in self.steps.items():
                image = _apply(step, image, f"{key}: {type(step).__name__}")
        return image


class BandColorSteps(ColorSteps):
    """Colour steps for images with bands: each band changes like a grey image, whose levels are 0 to 1.

    These are three standard deviations of the band below and above its mean. Values beyond change by as much as the
    darkest and the lightest level.
    """

    def __init__(self, steps: Mapping[str, v2.Transform], bands: Bands) -> None:
        self.steps = dict(steps)
        mean, std = (np.array(values, np.float32) for values in bands.statistics)
        self._low, self._range = mean - _SPREAD * std, 2 * _SPREAD * std
        with _reproducible(0):
            for place, step in _leaves(self.steps):
                _check_bands(place, step)

    def __call__(
        self, image: np.ndarray, rng: np.random.Generator, visible: tuple[slice, slice] = _WHOLE
    ) -> np.ndarray:
        """Return the image `(H, W, C)` with other values in its `visible` rows and columns; the rest is padding."""
        image = image.copy()
        levels = ((image[visible] - self._low) / self._range).clip(0, 1)
        planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(levels, 2, 0)))[:, None]
        changed = self._change(planes, rng)[:, 0].numpy()
        image[visible] += (np.moveaxis(changed, 0, 2) - levels) * self._range
        return image


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


def _leaves(steps: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the transforms of `steps` and of containers among them, with the key and the name of each for messages."""
    for key, step in steps.items():
        if isinstance(step, _CONTAINERS):
            yield from _leaves(
                {f"{key}.transforms.{position}": inner for position, inner in enumerate(step.transforms)}
            )
        else:
            yield f"{key}: {type(step).__name__}", step


def _check(place: str, step: Any) -> None:
    """Raise UserError unless `step` changes colours only; a transform that acts at random is tried for certain."""
    if not isinstance(step, _COLOR):
        names = ", ".join(known.__name__ for known in (*_COLOR, *_CONTAINERS))
        raise UserError(
            f"{place} is none of torchvision.transforms.v2's transforms that change colours only: use {names}; other "
            "keys of data.augmentation scale, crop and flip, and images are normalised later"
        )
    _try(step, torch.zeros(3, 64, 64, dtype=torch.uint8), place)


def _check_bands(place: str, step: Any) -> None:
    """Raise UserError unless `step` changes grey images of floats."""
    if isinstance(step, _RGB) or (isinstance(step, v2.ColorJitter) and (step.saturation or step.hue)):
        what = "with saturation or hue " if isinstance(step, v2.ColorJitter) else ""
        raise UserError(f"{place} {what}is for red, green and blue, which data.bands are not: remove it")
    if isinstance(step, _BYTES):
        raise UserError(f"{place} is for 8 bits, and images with data.bands are floats: remove it")
    _try(step, torch.zeros(2, 1, 64, 64), place)


def _try(step: Any, image: Tensor, place: str) -> None:
    """Raise UserError if `step` makes another kind of image."""
    changed = _apply(lambda tensor: step.transform(tensor, step.make_params([tensor])), image, place)
    if (changed.shape, changed.dtype) != (image.shape, image.dtype):
        kind = f"{changed.dtype} {tuple(changed.shape)}"
        raise UserError(f"{place} makes {kind} of {image.dtype} {tuple(image.shape)}: set it to keep both")


def _apply(step: Callable[[Tensor], Tensor], image: Tensor, place: str) -> Tensor:
    try:
        return step(image)
    except (RuntimeError, TypeError, ValueError) as error:
        height, width = image.shape[-2:]
        raise UserError(f"{place} fails for an image of {width}x{height} ({error}): change or remove it") from error
