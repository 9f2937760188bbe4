"""The final score of a module on a split, and the files that hold it."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.redaction import without_secrets
from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.evaluation.confusion_plot import draw_confusion
from fastfcn_pl.evaluation.formatting import averaged_classes, data_and_split, percent
from fastfcn_pl.evaluation.metrics import BoundaryIoU
from fastfcn_pl.evaluation.protocols import protocol_name, protocol_options
from fastfcn_pl.training.module import SegmentationModule

_ONE_TABLE = 40  # classes up to which each has a line of its own


def score(
    trainer: L.Trainer,
    module: SegmentationModule,
    datamodule: SegmentationDataModule,
    split: str,
    boundary_ratio: float | None = None,
) -> dict[str, Any]:
    """Score `module` on `split` and return what `results.json` holds about it; shares are fractions, NaN is None.

    With `boundary_ratio`, a share of the image's diagonal, boundary IoU is of them.
    """
    datamodule.trainer = trainer  # loaders are made for its ranks
    if boundary_ratio is not None:
        module.boundary = BoundaryIoU(module.spec.num_classes, boundary_ratio)
    trainer.test(module, dataloaders=datamodule.eval_dataloader(split), verbose=False)
    if module.scored_images == 0:
        raise UserError("nothing was scored: trainer.limit_test_batches leaves no image")
    scores = module.scores
    results = {
        "data": module.spec.name,
        "split": split,
        "protocol": protocol_name(module.protocol),
        "protocol_options": protocol_options(module.protocol),
        "mIoU": _number(scores.mean_iou),
        **_with_background(module.spec, scores.mean_iou),
        "pixel_accuracy": _number(scores.pixel_accuracy),
        "mean_accuracy": _number(scores.mean_accuracy),
        "frequency_weighted_IoU": _number(scores.frequency_weighted_iou),
        "mean_Dice": _number(scores.mean_dice),
        "IoU": _by_class(module.spec, scores.iou.tolist()),
        "Dice": _by_class(module.spec, scores.dice.tolist()),
        "accuracy": _by_class(module.spec, scores.accuracy.tolist()),
        "share": _by_class(module.spec, scores.share.tolist()),
        "absent_classes": [module.spec.classes[i] for i in scores.absent],
        "world_size": trainer.world_size,
        "images": module.scored_images,
    }
    if module.boundary is not None:
        results |= {
            "boundary_ratio": boundary_ratio,
            "mean_boundary_IoU": _number(module.boundary_iou.nanmean().item()),
            "boundary_IoU": _by_class(module.spec, module.boundary_iou.tolist()),
        }
    return results


def _with_background(spec: DatasetSpec, mean_iou: float) -> dict[str, float | None]:
    """Return the papers' 60-class score of a 59-class network on PASCAL Context: background counts as an IoU of 0."""
    applies = (spec.name, spec.num_classes) == ("pascal_context", 59)
    return {"mIoU_60_classes": _number(mean_iou * 59 / 60)} if applies else {}


def _by_class(spec: DatasetSpec, values: list[float]) -> dict[str, float | None]:
    return {name: _number(x) for name, x in zip(spec.classes, values, strict=True)}


def _number(x: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(x) else x


def report(
    results: dict[str, Any],
    module: SegmentationModule,
    run_dir: str,
    places: Mapping[str, str | None] | None = None,
) -> None:
    """Write the results of the scored `module` into the run's folder, print them, and say where everything is."""
    folder = Path(os.path.relpath(run_dir))
    write_confusion(module.scores.matrix, module.spec.classes, folder)
    write(results, folder)  # last: with results.json a run is done
    console = Console()
    console.print(class_table(results, module.spec.palette if console.is_terminal else None))
    console.print(headline(results), soft_wrap=True, highlight=False)
    found = {"checkpoint": results["checkpoint"], "overlays": folder / "overlays", "results": folder / "results.md"}
    for name, place in {**found, **(places or {})}.items():
        if place is not None:
            console.print(f"{name + ':':<12}{place}", soft_wrap=True, highlight=False)


def write(results: dict[str, Any], folder: Path) -> None:
    """Write `results.md` and then `results.json` into `folder`, each whole or not at all."""
    results = without_secrets(results)
    files = {"results.md": markdown(results), "results.json": json.dumps(results, indent=2) + "\n"}
    for name, text in files.items():
        with atomic_write(folder / name) as hidden:
            hidden.write_text(text)


def write_confusion(matrix: Tensor, classes: Sequence[str], folder: Path) -> None:
    """Write counts of pixels `(num_classes, num_classes)` to `confusion.csv`, and their shares to `confusion.png`.

    There is a row for each true class, and a column for each predicted one.
    """
    with atomic_write(folder / "confusion.csv") as hidden, hidden.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["true class", *classes])
        table.writerows([name, *counts] for name, counts in zip(classes, matrix.tolist(), strict=True))
    with atomic_write(folder / "confusion.png") as hidden:
        draw_confusion(matrix.numpy(), classes, hidden)


def headline(results: dict[str, Any]) -> str:
    """Return the scores of a split in one line."""
    mean_iou = percent(results["mIoU"])
    if "mIoU_60_classes" in results:
        mean_iou += f" ({percent(results['mIoU_60_classes'])} over 60 classes: 59/60 of it, background counting as 0)"
    return (
        f"{data_and_split(results)}, protocol {results['protocol']}: "
        f"mIoU {mean_iou}, pixel accuracy {percent(results['pixel_accuracy'])}, "
        f"mean accuracy {percent(results['mean_accuracy'])}{averaged_classes(results)}"
    )


def class_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return each class's name and, in percent, its `columns`."""
    keys = columns(results).values()
    return [(name, *(percent(results[key][name]) for key in keys)) for name in results["IoU"]]


def columns(results: dict[str, Any]) -> dict[str, str]:
    """Return which of the results are shown class by class, by the name that is above them."""
    boundary = {"boundary IoU": "boundary_IoU"} if "boundary_IoU" in results else {}
    return {"IoU": "IoU", **boundary, "accuracy": "accuracy", "pixel share": "share"}


def class_table(results: dict[str, Any], palette: Sequence[tuple[int, int, int]] | None = None) -> Table:
    """Return the per-class scores for a terminal; with `palette`, each class has its colour, and each IoU one of three.

    Many classes stand in two halves beside each other, with what there is room for: `results.md` has all.
    """
    title = f"{data_and_split(results)}, protocol {results['protocol']}"
    rows = [[Text(cell) for cell in row] for row in class_rows(results)]
    for i, (name, row) in enumerate(zip(results["IoU"], rows, strict=True)):
        if palette is not None:
            row[0] = Text.assemble(("■ ", "rgb({},{},{})".format(*palette[i])), name)
            row[1].stylize(_style(results["IoU"][name]))
    if len(rows) <= _ONE_TABLE:
        return _table(title, ["class", *columns(results)], rows)
    half, shown = -(-len(rows) // 2), (0, 1, -1)  # class, IoU, pixel share
    padded = [*rows, [Text()] * len(rows[0])]
    pairs = [[*(padded[i][j] for j in shown), *(padded[half + i][j] for j in shown)] for i in range(half)]
    return _table(title, ["class", "IoU", "share"] * 2, pairs)


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[Text]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, justify="left" if name == "class" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _style(iou: float | None) -> str:
    """Return a colour of Okabe and Ito, which colour-blind eyes tell apart: vermilion, orange, sky blue upwards."""
    if iou is None:
        return "dim"
    return "rgb(213,94,0)" if iou < 0.4 else "rgb(230,159,0)" if iou < 0.7 else "rgb(86,180,233)"


def markdown(results: dict[str, Any]) -> str:
    """Return the scores as a Markdown page."""
    rows = "\n".join(f"| {' | '.join(row)} |" for row in class_rows(results))
    absent = ", ".join(results["absent_classes"])
    note = f"\nLeft out of the mean, having no pixel: {absent}.\n" if absent else ""
    options = ", ".join(f"{key} {value}" for key, value in results["protocol_options"].items())
    weighted, dice = percent(results["frequency_weighted_IoU"]), percent(results["mean_Dice"])
    note += f"\nFrequency-weighted IoU {weighted}, mean Dice {dice}; which class is taken for which: `confusion.csv`.\n"
    if "mean_boundary_IoU" in results:
        mean = percent(results["mean_boundary_IoU"])
        note += f"\nMean boundary IoU {mean}, within {results['boundary_ratio']} of the diagonal.\n"
    note += f"\nProtocol {results['protocol']}: {options}.\n" if options else ""
    return (
        f"{headline(results)} ({results['images']} images).\n{note}\n"
        f"| {' | '.join(('class', *columns(results)))} |\n|{'---|' * (1 + len(columns(results)))}\n{rows}\n"
    )
