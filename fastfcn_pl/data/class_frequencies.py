"""Weights of classes by their frequency in the masks of the training split."""

from __future__ import annotations

import numpy as np


def balanced(pixels: np.ndarray) -> list[float]:
    """Return weights that are inverse to the share of each class among all labelled pixels, for `(images, classes)`.

    A class that is as frequent as the average one has the weight 1, as in scikit-learn's `class_weight="balanced"`.
    """
    total = pixels.sum(0).astype(float)
    return _weights(total.sum() / np.count_nonzero(total), total)


def median_frequency(pixels: np.ndarray) -> list[float]:
    """Return the weights of Eigen and Fergus (arXiv 1411.4734, section 6.3) for pixels `(images, classes)`.

    The frequency of a class is its share of the labelled pixels of the images in which it occurs.
    """
    labelled = pixels.sum(1, keepdims=True)
    around = np.where(pixels > 0, labelled, 0).sum(0)
    frequency = pixels.sum(0) / np.maximum(around, 1)
    return _weights(float(np.median(frequency[frequency > 0])), frequency)


def _weights(numerator: float, frequency: np.ndarray) -> list[float]:
    """Return `numerator / frequency`, and 1 for a class that never occurs, with six digits that a checkpoint keeps."""
    weights = np.divide(numerator, frequency, out=np.ones(len(frequency)), where=frequency > 0)
    return [float(f"{weight:.6g}") for weight in weights]


BY_NAME = {"balanced": balanced, "median_frequency": median_frequency}
