"""A tiny CamVid in the layout of the SegNet tutorial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_camvid(root: Path, size: tuple[int, int] = (60, 80), **counts: int) -> Path:
    """Write splits of `counts` images of `size` `(H, W)`, every class in each, id 11 at the edge; return `root`."""
    for split, count in counts.items():
        lines = []
        for i in range(count):
            rng = np.random.default_rng(sum(split.encode()) * 1000 + i)
            mask = (np.add.outer(np.arange(size[0]) // 8, np.arange(size[1]) // 8) + i) % 11
            mask[0] = 11
            image = np.clip(mask[..., None] * 20 + rng.integers(0, 40, (*size, 3)), 0, 255)
            for folder, array in ((split, image), (f"{split}annot", mask)):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(root / folder / f"{i:04d}.png")
            lines.append(f"/SegNet/CamVid/{split}/{i:04d}.png /SegNet/CamVid/{split}annot/{i:04d}.png")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root
