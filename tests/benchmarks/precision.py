"""Effect of bfloat16 on labels: `python -m tests.benchmarks.precision <checkpoint> [page.md]`.

Labels and scores of a checkpoint's own val, in bfloat16 as `predict precision=bf16-mixed` computes them, against
float32. A processor without bfloat16 emulates it, and takes ten times as long.
"""

from __future__ import annotations

import sys

import torch

from fastfcn_pl import Predictor
from fastfcn_pl.config import build
from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.engine.checkpoint import Checkpoint
from fastfcn_pl.evaluation.metrics import Scores, confusion
from tests.benchmarks.measure import machine
from tests.benchmarks.report import report

PRECISIONS = ("32-true", "bf16-mixed")


def main(path: str, file: str | None = None) -> str:
    """Measure, print the table, and write it into `file`."""
    predictors = {precision: Predictor(path, "auto", precision) for precision in PRECISIONS}
    datamodule = build.datamodule(Checkpoint.read(path).parts("data", "seed"))
    val, classes = datamodule.dataset("val"), datamodule.spec.num_classes
    matrices = {precision: torch.zeros(classes, classes, dtype=torch.int64) for precision in PRECISIONS}
    same = pixels = 0
    for index in range(len(val.source)):
        item = val[0, index]
        labels = {}
        for precision, predictor in predictors.items():
            found = torch.from_numpy(predictor(item["image"].permute(1, 2, 0).numpy()))
            matrices[precision] += confusion(found.long(), item["target"], classes)
            labels[precision] = found
        same += int((labels["32-true"] == labels["bf16-mixed"]).sum())
        pixels += labels["32-true"].numel()
    scores = {precision: Scores.of(matrix) for precision, matrix in matrices.items()}
    rows = [[name, f"{100 * of.mean_iou:.2f}", f"{100 * of.pixel_accuracy:.2f}"] for name, of in scores.items()]
    what = f"{len(val.source)} images of {datamodule.spec.name} val. {machine()}"
    text = f"{what}\n\n{markdown_table(['', 'mIoU, %', 'pixel accuracy, %'], rows)}\n\n"
    text += (
        f"{100 * same / pixels:.2f} % of pixels have the same label; to be reached: 99 %, and mIoU within 0.2 points."
    )
    report(file, "Labels in bfloat16", "python -m tests.benchmarks.precision <checkpoint> <page>", text)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:3])
