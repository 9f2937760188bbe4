"""A predictor without a network, quick and exact, whose labels tell images from each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.evaluation.score_map import ScoreMap

SPEC = DatasetSpec(
    "shades", ("dark", "middle", "light"), ((10, 0, 0), (120, 0, 0), (250, 0, 0)), {10: 0, 120: 1, 250: 2}
)


class FakePredictor:
    """Labels each pixel by its red: below 64, below 192, and above are classes 0, 1 and 2, stored as 10, 120, 250."""

    spec = SPEC
    made = 0

    def __init__(self, checkpoint: str, *options: object, **more: object) -> None:
        FakePredictor.made += 1

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return np.digitize(image[..., 0], [64, 192]).astype(np.uint8)

    def scores(self, image: np.ndarray) -> ScoreMap:
        one_hot = np.eye(3, dtype=np.float32)[self(image)]
        return ScoreMap.of(torch.from_numpy(one_hot).permute(2, 0, 1)[None])


def write_shade(path: Path, shade: int, size: tuple[int, int] = (16, 16)) -> Path:
    """Write an image all of whose pixels are of class `shade`, 0, 1 or 2; return `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, SPEC.palette[shade]).save(path)
    return path
