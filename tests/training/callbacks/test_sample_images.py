"""Overlays of validation images."""

from __future__ import annotations

import torch

from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.training.callbacks.sample_images import _MAX_SIDE, Sample


def test_a_large_image_is_subsampled() -> None:
    labels = torch.arange(2 * _MAX_SIDE + 1).expand(1, 9, -1) % 3
    batch = {"image": labels[:, None].repeat(1, 3, 1, 1).byte(), "target": labels.byte()}
    spec = DatasetSpec("three", ("a", "b", "c"), ((0, 0, 0),) * 3)
    sample = Sample({"prediction": labels}, batch, spec)
    assert sample.target.shape == sample.prediction.shape == (3, 1366)
    assert sample.image.shape == (3, 1366, 3)
    assert (sample.target == 0).all(), "every third column"
    assert sample.comparison().shape[1] < 6000
    small = {key: value[..., :80] for key, value in batch.items()}
    assert Sample({"prediction": labels[..., :80]}, small, spec).image.shape == (9, 80, 3)
