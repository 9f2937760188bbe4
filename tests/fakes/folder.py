"""A data set of your own: photographs and masks in folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = np.array([(90, 120, 60), (200, 60, 40), (40, 80, 190)])


def photograph(seed: int, size: tuple[int, int] = (60, 80)) -> tuple[np.ndarray, np.ndarray]:
    """Return a smooth, textured picture `(H, W, 3)`, and its ids `(H, W)`: ground 0, a red thing 1, a blue thing 2."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    ids = np.zeros(size, np.uint8)
    for thing in (1, 2):
        centre, radius = rng.uniform(0.25, 0.75, 2) * size, rng.uniform(0.15, 0.3) * min(size)
        ids[np.hypot(y - centre[0], x - centre[1]) < radius] = thing
    coarse = Image.fromarray(rng.integers(0, 80, (5, 7, 3), dtype=np.uint8))
    light = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), np.float64)
    texture = 12 * np.sin(0.9 * x + 0.4 * y)[..., None] + rng.normal(0, 4, (*size, 3))
    return np.clip(COLORS[ids] + light - 40 + texture, 0, 255).astype(np.uint8), ids


def write_folder(root: Path, **counts: int) -> Path:
    """Write `counts` photographs a split, `images/<split>/<i>.jpg` and `masks/<split>/<i>.png`; return `root`."""

    def write(path: Path, seed: int) -> np.ndarray:
        image, ids = photograph(seed)
        Image.fromarray(image).save(path.with_suffix(".jpg"), quality=90)
        return ids

    return write_pairs(root, counts, write)


def write_pairs(root: Path, counts: dict[str, int], write: Callable[[Path, int], np.ndarray]) -> Path:
    """Write images by `write`, which takes a path without a suffix and a seed and returns ids, and these as masks."""
    for split, count in counts.items():
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            ids = write(root / "images" / split / f"{i:03d}", sum(split.encode()) * 1000 + i)
            Image.fromarray(ids).save(root / "masks" / split / f"{i:03d}.png")
    return root
