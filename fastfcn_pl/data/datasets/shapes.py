"""Shapes: generated pictures whose classes are told by shape, pattern and surroundings, never by colour.

Nothing is downloaded, and a small network learns it on a CPU in about a minute. Figures overlap on a patterned,
littered ground under uneven light. Each draws its colour and its pattern from one distribution:

- disc, triangle, cross and ring are told by their outline;
- plank and ladder have the same outline: a plank's stripes run along it, a ladder's across it;
- hole is ground like any other, but surrounded by a ring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.data.dataset import Transform
from fastfcn_pl.data.loader_options import AUTOMATIC, Loading

SPEC = DatasetSpec(
    name="shapes",
    classes=("background", "disc", "triangle", "cross", "ring", "hole", "plank", "ladder"),
    palette=(
        (38, 42, 56),
        (236, 98, 84),
        (247, 183, 74),
        (128, 191, 98),
        (64, 156, 214),
        (150, 214, 232),
        (150, 104, 200),
        (238, 150, 198),
    ),
)
BACKGROUND, DISC, TRIANGLE, CROSS, RING, HOLE, PLANK, LADDER = range(SPEC.num_classes)

Array = NDArray[np.floating]
Window = tuple[slice, slice]

BORDER = 0.75
"""Half the width of the ignored band along every outline, in pixels: more than half a step, so that it has no gaps."""


def _box(u: Array, v: Array, half_u: float, half_v: float) -> Array:
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


OUTLINES: dict[int, Callable[[Array, Array, float], Array]] = {
    DISC: lambda u, v, r: np.hypot(u, v) - 0.85 * r,
    TRIANGLE: lambda u, v, r: np.maximum(0.866 * np.abs(u) + 0.5 * v, -v) - 0.6 * r,
    CROSS: lambda u, v, r: np.minimum(_box(u, v, r, 0.33 * r), _box(u, v, 0.33 * r, r)),
    RING: lambda u, v, r: np.abs(np.hypot(u, v) - 0.82 * r) - 0.2 * r,
    PLANK: lambda u, v, r: _box(u, v, r, 0.52 * r),
    LADDER: lambda u, v, r: _box(u, v, r, 0.52 * r),
}
"""Signed distance in pixels, negative inside, from the points `(u, v)` to a figure of radius `r` about the origin."""


def _colour(rng: np.random.Generator, hue: float) -> Array:
    """Draw a colour of this hue (in turns): `(3,)`, 0 to 1."""
    saturation, value = rng.uniform(0.25, 0.75), rng.uniform(0.6, 1.0)
    wheel = 0.5 + 0.5 * np.cos(2 * pi * (hue - np.arange(3) / 3))
    return (value * (1 - saturation * (1 - wheel))).astype(np.float32)


def _pattern(rng: np.random.Generator, u: Array, v: Array, figure: int, unit: float) -> Array:
    """Draw stripes, checks, dots or nothing: how dark each point is, 0 to 1."""
    wave = 2 * pi / (rng.uniform(6, 9) * unit)
    u, v, kind = u * wave + rng.uniform(0, 2 * pi), v * wave + rng.uniform(0, 2 * pi), rng.integers(4)
    if figure == PLANK:
        tone = np.sin(v)
    elif figure == LADDER or kind == 0:
        tone = np.sin(u)
    elif kind == 1:
        tone = 2 * np.sin(0.7 * u) * np.sin(0.7 * v)
    elif kind == 2:
        tone = np.sin(u) + np.sin(v) - 1
    else:
        return np.zeros_like(u)
    return np.clip(0.5 + 1.5 * tone, 0, 1)


class _Picture:
    """A picture in the making: `image` `(size, size, 3)`, 0 to 1, and `labels` `(size, size)`.

    `unit` is the length that is one pixel in a picture of 128.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size, self.unit = rng, size, size / 128
        self.x = np.arange(size, dtype=np.float32)[None] + 0.5
        self.y = self.x.T
        self.light_from, self.hue = rng.uniform(0, 2 * pi), rng.uniform()
        self.image = np.zeros((size, size, 3), np.float32)
        self.labels = np.full((size, size), BACKGROUND, np.uint8)
        everywhere = self._window(size / 2, size / 2, size / 2)
        u, v = self._local(everywhere, size / 2, size / 2, rng.uniform(0, pi))
        self.image += _colour(rng, self.hue) * (1 - 0.25 * _pattern(rng, u, v, BACKGROUND, self.unit))[..., None]

    def litter(self) -> None:
        """Draw a short line or a speck, which is background."""
        half, thick = self.rng.uniform(0, 6) * self.unit, self.rng.uniform(0.6, 1.6) * self.unit
        x, y = self.rng.uniform(0, self.size), self.rng.uniform(0, self.size)
        window = self._window(x, y, half + thick)
        u, v = self._local(window, x, y, self.rng.uniform(0, pi))
        self._fill(window, np.hypot(np.maximum(np.abs(u) - half, 0), v) - thick, np.zeros_like(u))

    def figure(self, figure: int, x: float, y: float, radius: float) -> None:
        """Draw a figure over what is there, with its shadow, and label it."""
        angle, cast = self.rng.uniform(0, 2 * pi), 3 * self.unit
        window = self._window(x, y, 1.2 * radius + 2 * cast)
        shadow = self._local(window, x - cast * cos(self.light_from), y - cast * sin(self.light_from), angle)
        depth = np.clip(0.5 - OUTLINES[figure](*shadow, radius) / (2 * cast), 0, 1)
        self.image[window] *= (1 - 0.4 * depth)[..., None]

        u, v = self._local(window, x, y, angle)
        distance = OUTLINES[figure](u, v, radius)
        self._fill(window, distance, 0.45 * _pattern(self.rng, u, v, figure, self.unit))

        labels = self.labels[window]
        if figure == RING:
            labels[(labels == BACKGROUND) & (np.hypot(u, v) < 0.82 * radius)] = HOLE
        labels[distance < BORDER] = IGNORE
        labels[distance < -BORDER] = figure

    def shade(self) -> None:
        """Light the picture from one side, past a cloud, and add a camera's noise."""
        along = (self.x * cos(self.light_from) + self.y * sin(self.light_from)) / self.size
        x, y = self.rng.uniform(0, self.size), self.rng.uniform(0, self.size)
        cloud = np.exp(-((self.x - x) ** 2 + (self.y - y) ** 2) / (0.35 * self.size) ** 2)
        self.image *= ((0.95 + 0.3 * (along - along.mean())) * (1 - 0.3 * cloud))[..., None]
        self.image += 0.025 * self.rng.standard_normal((self.size, self.size, 1), dtype=np.float32)

    def _window(self, x: float, y: float, reach: float) -> Window:
        """Return the rows and columns around a point."""
        return slice(max(int(y - reach), 0), int(y + reach) + 2), slice(max(int(x - reach), 0), int(x + reach) + 2)

    def _local(self, window: Window, x: float, y: float, angle: float) -> tuple[Array, Array]:
        """Return the window's coordinates in the frame of a figure at `(x, y)` turned by `angle`."""
        dx, dy = self.x[:, window[1]] - x, self.y[window[0]] - y
        return dx * cos(angle) + dy * sin(angle), dy * cos(angle) - dx * sin(angle)

    def _fill(self, window: Window, distance: Array, darkness: Array) -> None:
        """Paint the inside of an outline in one colour, which is not the ground's but over all pictures is any."""
        colour = _colour(self.rng, self.hue + self.rng.uniform(0.12, 0.88))
        under = self.image[window]
        under += (colour * (1 - darkness)[..., None] - under) * np.clip(0.5 - distance, 0, 1)[..., None]


def _places(rng: np.random.Generator, count: int) -> Array:
    """Draw places `(count, 2)` in the unit square that keep apart somewhat: each is the best of a few tries."""
    places = rng.uniform(0.15, 0.85, (1, 2))
    for _ in range(count - 1):
        tries = rng.uniform(0.15, 0.85, (6, 2))
        nearest = np.hypot(*(tries[:, None] - places).T).min(axis=0)
        places = np.vstack([places, tries[nearest.argmax()]])
    return places


@dataclass(frozen=True)
class ShapesSource:
    """`count` pictures of `size` by `size` pixels. Picture `i` depends on `(seed, i)` alone."""

    count: int
    size: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, index))
        picture = _Picture(rng, self.size)
        for _ in range(rng.integers(8, 16)):
            picture.litter()
        kinds = list(OUTLINES)
        for x, y in _places(rng, int(rng.integers(4, 7))).tolist():
            kind, radius = kinds[rng.integers(len(kinds))], rng.uniform(22, 29) * picture.unit
            picture.figure(kind, x * self.size, y * self.size, radius)
        picture.shade()
        return (picture.image.clip(0, 1) * 255).astype(np.uint8), picture.labels

    def name(self, index: int) -> str:
        return f"shapes-{self.seed}-{index:04d}"

    def files(self, index: int) -> tuple[Path, ...]:
        return ()


class Shapes(SegmentationDataModule):
    """`train_images` and `val_images` pictures of `size` by `size` pixels, drawn when they are read."""

    spec = SPEC

    def __init__(
        self,
        seed: int,
        *,
        train_images: int,
        val_images: int,
        size: int,
        batch_size: int,
        num_workers: int | None,
        augmentation: Transform,
        loader: Loading = AUTOMATIC,
    ) -> None:
        super().__init__(seed, batch_size=batch_size, num_workers=num_workers, augmentation=augmentation, loader=loader)
        self.counts, self.size = {"train": train_images, "val": val_images}, size

    @property
    def split_names(self) -> list[str]:
        return [*self.counts]

    def source(self, split: str) -> ShapesSource:
        if split not in self.counts:
            raise UserError(f"shapes has no split {split}: use {' or '.join(self.counts)}")
        # The pictures are the same whatever the run's seed, so that scores of different runs compare.
        return ShapesSource(self.counts[split], self.size, seed=list(self.counts).index(split))
