"""A tiny ADE20K in the official layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_ade20k(root: Path, train: int = 4, val: int = 2) -> Path:
    """Write images of odd sizes, one of them grayscale, with ids 0 to 150 in their masks; return `root`."""
    for folder, split, count in (("training", "train", train), ("validation", "val", val)):
        for kind in ("images", "annotations"):
            (root / kind / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            height, width = 65 + 8 * i, 97
            mask = np.arange(height * width).reshape(height, width) // 43 % 151
            name = f"ADE_{split}_{i + 1:08d}"
            image = Image.fromarray((mask * 1.6).astype(np.uint8))
            image = image if i == 0 else image.convert("RGB")
            image.save(root / "images" / folder / f"{name}.jpg")
            Image.fromarray(mask.astype(np.uint8)).save(root / "annotations" / folder / f"{name}.png")
    return root
