"""Label maps with what metrics find hard: thin lines, single pixels, ignored borders, absent classes, odd sizes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fastfcn_pl.core.types import IGNORE

CLASSES = 5
"""Classes 0 to 3 occur in labels; 4 occurs only in predictions."""
NO_CONFIDENCE = torch.zeros(0)
"""For diagnostics that do not look at it."""


def masks() -> Iterator[np.ndarray]:
    """Yield label maps `(H, W)`, uint8."""
    rng = np.random.default_rng(0)
    for size in ((17, 23), (1, 9), (32, 8), (5, 5)):  # noise, blobs, and blobs in an ignored frame
        yield rng.integers(0, 4, size).astype(np.uint8)
        blobs = rng.integers(0, 4, (8, 8)).repeat(7, 0).repeat(5, 1)[: size[0], : size[1]].astype(np.uint8)
        yield blobs
        framed = np.full_like(blobs, IGNORE)
        framed[1:-1, 2:-1] = blobs[1:-1, 2:-1]
        yield framed
    lines = np.zeros((24, 31), np.uint8)
    lines[:, 5] = 1
    lines[11:13] = 2
    np.fill_diagonal(lines[:, 8:], 3)
    lines[20, 29] = 1
    lines[3:6, 20:22] = IGNORE
    yield lines
    yield np.full((9, 14), 2, np.uint8)
    yield np.full((6, 7), IGNORE, np.uint8)
    ringed = np.zeros((30, 30), np.uint8)  # an ignored ring between two classes, as in PASCAL VOC
    ringed[5:25, 5:25] = IGNORE
    ringed[8:22, 8:22] = 3
    yield ringed


def predictions(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return labels that are wrong in a third of the pixels, also where those are ignored."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, CLASSES, labels.shape)
    return np.where((rng.random(labels.shape) < 0.4) | (labels == IGNORE), noise, labels).astype(np.int64)


def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield predictions, labels and confidences `(1, H, W)` of all masks."""
    for seed, labels in enumerate(masks()):
        confidence = np.random.default_rng(seed).uniform(0.2, 1, labels.shape).astype(np.float32)
        yield tuple(torch.from_numpy(x)[None] for x in (predictions(labels, seed), labels, confidence))  # type: ignore[misc]
