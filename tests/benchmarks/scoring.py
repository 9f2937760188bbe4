"""Scoring behind the network: `python -m tests.benchmarks.scoring [experiments/speed/training.md]`.

Logits of an image of 512x683 with 150 classes to its confusion matrix. With REFERENCE=<a checkout of wuhuikai/FastFCN>
its own functions score what `F.interpolate` gives; without, an argmax and numpy's histograms of the same do.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.evaluation.metrics import confusion
from fastfcn_pl.evaluation.score_map import ScoreMap
from tests.benchmarks.measure import machine, medians
from tests.benchmarks.published import checkout, published_network
from tests.benchmarks.report import report


def upsampled(logits: Tensor, target: Tensor) -> Tensor:
    """Return logits at the label's size, as the published network does."""
    return F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=True)


def ours(logits: Tensor, target: Tensor) -> Tensor:
    """Return the confusion matrix, as `evaluate` computes it."""
    size = target.shape[-2], target.shape[-1]
    labels = ScoreMap.of(logits).resized(size, align_corners=True).labels()
    return confusion(labels, target, logits.shape[1])


def published(logits: Tensor, target: Tensor) -> Any:
    """Return pixels that are right and labelled, and each class's in the intersection and in the union."""
    metrics = importlib.import_module("encoding.utils.metrics")
    full, labels = upsampled(logits, target), torch.where(target == IGNORE, -1, target.long())
    return metrics.batch_pix_accuracy(full, labels), metrics.batch_intersection_union(full, labels, logits.shape[1])


def histograms(logits: Tensor, target: Tensor) -> Any:
    """Return the same areas as `published`, written anew."""
    classes, true = logits.shape[1], target.numpy().astype(np.int64)
    found, bins = upsampled(logits, target).argmax(1).numpy(), np.arange(classes + 1)
    labelled, right = true != IGNORE, found == true
    areas = [np.histogram(values, bins)[0] for values in (found[labelled & right], found[labelled], true[labelled])]
    return (areas[0].sum(), labelled.sum()), (areas[0], areas[1] + areas[2] - areas[0])


def batch(classes: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return logits at stride 8 and the labels of an image."""
    rng = torch.Generator().manual_seed(0)
    target = torch.randint(0, classes, (1, height, width), generator=rng, dtype=torch.uint8)
    target[torch.rand(1, height, width, generator=rng) < 0.1] = IGNORE
    return 3 * torch.randn(1, classes, -(-height // 8), -(-width // 8), generator=rng), target


def main(file: str | None = None, classes: int = 150, size: tuple[int, int] = (512, 683), rounds: int = 15) -> str:
    """Measure, print the table, and write it into `file`."""
    logits, target = batch(classes, *size)
    theirs, name = histograms, "F.interpolate, argmax, numpy histograms"
    if checkout() is not None:
        published_network("encnet_r50", 2)  # makes their package importable
        theirs, name = published, "F.interpolate, published metrics"
    contenders = {name: lambda: theirs(logits, target), "ours": lambda: ours(logits, target)}
    seconds = medians(contenders, rounds)
    rows = [[key, f"{1e3 * of:.1f}", f"{seconds[name] / of:.1f}"] for key, of in seconds.items()]
    rows.append(["to be reached", "", "4.0"])
    text = f"1 image of {size[0]}x{size[1]}, {classes} classes, labels random. {machine()}\n\n"
    text += f"{markdown_table(['', 'ms', 'times as fast'], rows)}\n\n{_agreement(logits, target, theirs)}"
    report(file, "Scoring", "REFERENCE=<checkout> python -m tests.benchmarks.scoring", text)
    return text


def _agreement(logits: Tensor, target: Tensor, theirs: Any) -> str:
    matrix, plain = ours(logits, target), confusion(upsampled(logits, target).argmax(1), target, logits.shape[1])
    (right, labelled), (intersection, union) = theirs(logits, target)
    hits = matrix.diagonal()
    same = (hits == torch.as_tensor(intersection)).all() and hits.sum() == right and matrix.sum() == labelled
    same &= (matrix.sum(0) + matrix.sum(1) - hits == torch.as_tensor(union)).all()
    moved = int((matrix - plain).abs().sum()) // 2
    return (
        f"Pixels that our confusion matrix has in another cell than that of the plain argmax: {moved} of "
        f"{int(matrix.sum())}. Intersections, unions, pixel accuracy: {'equal' if same else 'not equal'} to theirs."
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
