"""Samples are distributed as those of the published class; REFERENCE is a checkout of its code."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image
from scipy.stats import ks_2samp

from fastfcn_pl.config import build
from tests.benchmarks.data import published_class

SIZE, BASE, CROP, COUNT = (240, 180), 104, 96, 1500


def _picture() -> Image.Image:
    """Return a picture with the column in red, the row in green, and noise in blue, which shows scale and blur."""
    columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    noise = np.random.default_rng(0).integers(0, 256, SIZE[::-1])
    return Image.fromarray(np.stack([columns, rows, noise], axis=-1).astype(np.uint8))


def _statistics(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Return statistics that reveal each draw from a crop of `_picture`; the mask is 1 except in padding."""
    visible = image[(mask == 1).any(axis=1)][:, (mask == 1).any(axis=0)].astype(float)
    red, green, noise = np.moveaxis(visible, -1, 0)
    step = (red[:, -8].mean() - red[:, 8].mean()) / (red.shape[1] - 16)
    return {
        "scale": abs(step),
        "flip": float(step < 0),
        "column": red.mean(),
        "row": green.mean(),
        "share": (mask == 1).mean(),
        "roughness": np.abs(np.diff(noise, axis=0)).mean(),
        "blur": np.abs(np.diff(noise, axis=0)).mean() * min(1, abs(step)),
    }


def test_samples_are_distributed_as_those_of_the_published_class(make_config: Callable[..., DictConfig]) -> None:
    if "REFERENCE" not in os.environ:
        pytest.skip("REFERENCE is not set to a checkout of the published code")
    theirs = published_class(Path(os.environ["REFERENCE"]))(None, "train", base_size=BASE, crop_size=CROP)
    keys = [f"data.augmentation.base_size={BASE}", f"data.augmentation.crop_size={CROP}"]
    ours = build.build(make_config("data=ade20k", *keys).data.augmentation)
    picture, rng = _picture(), np.random.default_rng(1)
    pixels, ones = np.asarray(picture), np.ones(SIZE[::-1], np.uint8)
    random.seed(2)
    statistics: dict[str, tuple[list[float], list[float]]] = {}
    for _ in range(COUNT):
        image, mask = theirs._sync_transform(picture, Image.fromarray(ones))
        for side, sample in enumerate(((np.asarray(image), mask.numpy()), ours(pixels, ones, rng))):
            for name, value in _statistics(*sample).items():
                statistics.setdefault(name, ([], []))[side].append(value)
    p_values = {name: float(ks_2samp(*values).pvalue) for name, values in statistics.items()}
    assert min(p_values.values()) > 0.01, p_values
