"""Shapes: generated pictures in which classes differ by shape, pattern and surroundings, never by colour.

Nothing is downloaded, and a small network can be trained on a CPU in about a minute. Figures overlap on a patterned,
littered background under uneven light. All of them draw colour and pattern from the same distribution:

- disc, triangle, cross and ring differ by their outline;
- plank and ladder share an outline, but stripes run along a plank and across a ladder;
- hole is background that is surrounded by a ring.
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
from fastfcn_pl.data.samplers import UNIFORM, Sampling

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
"""Half the width in pixels of the ignored band along outlines; more than 0.5, so that the band has no gaps."""


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
"""Signed distance in pixels, negative inside, of points `(u, v)` from a figure of radius `r` at the origin."""


def _color(rng: np.random.Generator, hue: float) -> Array:
    """Draw an RGB colour `(3,)`, 0 to 1, of the given hue, 0 to 1."""
    saturation, value = rng.uniform(0.25, 0.75), rng.uniform(0.6, 1.0)
    wheel = 0.5 + 0.5 * np.cos(2 * pi * (hue - np.arange(3) / 3))
    return (value * (1 - saturation * (1 - wheel))).astype(np.float32)


def _pattern(rng: np.random.Generator, u: Array, v: Array, figure: int, unit: float) -> Array:
    """Draw stripes, checks, dots or no pattern; return the darkness of each point, 0 to 1."""
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


class _Canvas:
    """Canvas with an `image` `(size, size, 3)`, 0 to 1, and its `labels` `(size, size)`.

    `unit` is the length of a pixel in a picture of 128 pixels.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size, self.unit = rng, size, size / 128
        self.x = np.arange(size, dtype=np.float32)[None] + 0.5
        self.y = self.x.T
        self.light_angle, self.hue = rng.uniform(0, 2 * pi), rng.uniform()
        self.image = np.zeros((size, size, 3), np.float32)
        self.labels = np.full((size, size), BACKGROUND, np.uint8)
        whole = self._window(size / 2, size / 2, size / 2)
        u, v = self._local(whole, size / 2, size / 2, rng.uniform(0, pi))
        self.image += _color(rng, self.hue) * (1 - 0.25 * _pattern(rng, u, v, BACKGROUND, self.unit))[..., None]

    def draw_litter(self) -> None:
        """Draw a short line or a speck, labelled as background."""
        half, thick = self.rng.uniform(0, 6) * self.unit, self.rng.uniform(0.6, 1.6) * self.unit
        x, y = self.rng.uniform(0, self.size), self.rng.uniform(0, self.size)
        window = self._window(x, y, half + thick)
        u, v = self._local(window, x, y, self.rng.uniform(0, pi))
        self._fill(window, np.hypot(np.maximum(np.abs(u) - half, 0), v) - thick, np.zeros_like(u))

    def draw_figure(self, figure: int, x: float, y: float, radius: float) -> None:
        """Draw a figure with its shadow over the picture, and label it."""
        angle, offset = self.rng.uniform(0, 2 * pi), 3 * self.unit
        window = self._window(x, y, 1.2 * radius + 2 * offset)
        shadow = self._local(window, x - offset * cos(self.light_angle), y - offset * sin(self.light_angle), angle)
        depth = np.clip(0.5 - OUTLINES[figure](*shadow, radius) / (2 * offset), 0, 1)
        self.image[window] *= (1 - 0.4 * depth)[..., None]

        u, v = self._local(window, x, y, angle)
        distance = OUTLINES[figure](u, v, radius)
        self._fill(window, distance, 0.45 * _pattern(self.rng, u, v, figure, self.unit))

        labels = self.labels[window]
        if figure == RING:
            labels[(labels == BACKGROUND) & (np.hypot(u, v) < 0.82 * radius)] = HOLE
        labels[distance < BORDER] = IGNORE
        labels[distance < -BORDER] = figure

    def apply_light(self) -> None:
        """Apply light from one side, the shadow of a cloud, and camera noise."""
        along = (self.x * cos(self.light_angle) + self.y * sin(self.light_angle)) / self.size
        x, y = self.rng.uniform(0, self.size), self.rng.uniform(0, self.size)
        cloud = np.exp(-((self.x - x) ** 2 + (self.y - y) ** 2) / (0.35 * self.size) ** 2)
        self.image *= ((0.95 + 0.3 * (along - along.mean())) * (1 - 0.3 * cloud))[..., None]
        self.image += 0.025 * self.rng.standard_normal((self.size, self.size, 1), dtype=np.float32)

    def _window(self, x: float, y: float, reach: float) -> Window:
        """Return the rows and columns within `reach` of a point."""
        return slice(max(int(y - reach), 0), int(y + reach) + 2), slice(max(int(x - reach), 0), int(x + reach) + 2)

    def _local(self, window: Window, x: float, y: float, angle: float) -> tuple[Array, Array]:
        """Return the window's coordinates in the frame of a figure at `(x, y)` rotated by `angle`."""
        dx, dy = self.x[:, window[1]] - x, self.y[window[0]] - y
        return dx * cos(angle) + dy * sin(angle), dy * cos(angle) - dx * sin(angle)

    def _fill(self, window: Window, distance: Array, darkness: Array) -> None:
        """Fill the inside of an outline with a random colour that differs from the background's."""
        color = _color(self.rng, self.hue + self.rng.uniform(0.12, 0.88))
        under = self.image[window]
        under += (color * (1 - darkness)[..., None] - under) * np.clip(0.5 - distance, 0, 1)[..., None]


def _scattered_points(rng: np.random.Generator, count: int) -> Array:
    """Draw points `(count, 2)` in the unit square; each is the farthest from the others among six candidates."""
    points = rng.uniform(0.15, 0.85, (1, 2))
    for _ in range(count - 1):
        candidates = rng.uniform(0.15, 0.85, (6, 2))
        nearest = np.hypot(*(candidates[:, None] - points).T).min(axis=0)
        points = np.vstack([points, candidates[nearest.argmax()]])
    return points


@dataclass(frozen=True)
class ShapesSource:
    """Source of `count` pictures of `size` by `size` pixels; picture `i` depends on `(seed, i)` alone."""

    count: int
    size: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, index))
        canvas = _Canvas(rng, self.size)
        for _ in range(rng.integers(8, 16)):
            canvas.draw_litter()
        kinds = list(OUTLINES)
        for x, y in _scattered_points(rng, int(rng.integers(4, 7))).tolist():
            kind, radius = kinds[rng.integers(len(kinds))], rng.uniform(22, 29) * canvas.unit
            canvas.draw_figure(kind, x * self.size, y * self.size, radius)
        canvas.apply_light()
        return (canvas.image.clip(0, 1) * 255).astype(np.uint8), canvas.labels

    def name(self, index: int) -> str:
        return f"shapes-{self.seed}-{index:04d}"

    def files(self, index: int) -> tuple[Path, ...]:
        return ()


class Shapes(SegmentationDataModule):
    """Data set of `train_images` and `val_images` pictures of `size` by `size` pixels, drawn on reading."""

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
        sampler: Sampling = UNIFORM,
    ) -> None:
        super().__init__(
            seed,
            batch_size=batch_size,
            num_workers=num_workers,
            augmentation=augmentation,
            loader=loader,
            sampler=sampler,
        )
        self.counts, self.size = {"train": train_images, "val": val_images}, size

    @property
    def split_names(self) -> list[str]:
        return [*self.counts]

    def source(self, split: str) -> ShapesSource:
        if split not in self.counts:
            raise UserError(f"shapes has no split {split}: use {' or '.join(self.counts)}")
        # Pictures do not depend on the run's seed, so that scores of different runs are comparable.
        return ShapesSource(self.counts[split], self.size, seed=list(self.counts).index(split))
