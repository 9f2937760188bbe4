"""Final score of a module on a split, and the files that it is written to."""

from __future__ import annotations

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
from fastfcn_pl.core.tables import markdown_table, write_csv
from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.engine import diagnostics_report
from fastfcn_pl.evaluation.confusion_plot import draw_confusion
from fastfcn_pl.evaluation.diagnostics.diagnostic import Diagnostics
from fastfcn_pl.evaluation.formatting import averaged_classes, data_and_split, part_of_split, percent
from fastfcn_pl.evaluation.protocols import protocol_name, protocol_options
from fastfcn_pl.training.module import SegmentationModule

_MAX_ROWS = 40
"""Classes up to which the table has one row each; more are shown in two columns."""
COLUMNS = {"IoU": "IoU", "accuracy": "accuracy", "pixel share": "share"}
"""Keys of the per-class results by the headings of their columns."""


def score(
    trainer: L.Trainer,
    module: SegmentationModule,
    datamodule: SegmentationDataModule,
    split: str,
    diagnostics: Diagnostics | None = None,
) -> dict[str, Any]:
    """Score `module` on `split` and return the scores for `results.json`. Shares are fractions, and NaN is None."""
    datamodule.trainer = trainer  # its loaders depend on the trainer's ranks
    module.diagnostics = diagnostics
    trainer.test(module, dataloaders=datamodule.eval_dataloader(split), verbose=False)
    if module.scored_images == 0:
        raise UserError("no image was scored: raise trainer.limit_test_batches, or leave it out")
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
        "split_images": module.split_images,
    }
    if diagnostics:
        results["diagnostics"] = diagnostics_report.plain(diagnostics.findings, module.spec.classes)
    for name, value in trainer.callback_metrics.items():
        kind, _, score_name = name.partition("/")
        if kind == "final" and "/" not in score_name:  # the module's own are there; others come from callbacks
            results.setdefault(score_name, _number(float(value)))
    return results


def _with_background(spec: DatasetSpec, mean_iou: float) -> dict[str, float | None]:
    """Return the 60-class mIoU of papers for a 59-class network on PASCAL Context: background has an IoU of 0."""
    applies = (spec.name, spec.num_classes) == ("pascal_context", 59)
    return {"mIoU_60_classes": _number(mean_iou * 59 / 60)} if applies else {}


def _by_class(spec: DatasetSpec, values: list[float]) -> dict[str, float | None]:
    return {name: _number(x) for name, x in zip(spec.classes, values, strict=True)}


def _number(x: float) -> float | None:
    """Return None for NaN, which JSON does not have."""
    return None if math.isnan(x) else x


def report(
    results: dict[str, Any],
    module: SegmentationModule,
    run_dir: str,
    places: Mapping[str, str | None] | None = None,
) -> None:
    """Write the results of the scored `module` to the run's folder, and print them and the paths of the files.

    `places` are further names and paths or URLs to print.
    """
    folder = Path(os.path.relpath(run_dir))
    write_confusion(module.scores.matrix, module.spec.classes, folder)
    charts = diagnostics_report.write_charts(module.diagnostics, folder) if module.diagnostics else []
    write(results, folder)  # last, since a run with results.json counts as done
    console = Console()
    console.print(class_table(results, module.spec.palette if console.is_terminal else None))
    if "diagnostics" in results:
        console.print(diagnostics_report.table(results["diagnostics"]))
    console.print(headline(results), soft_wrap=True, highlight=False)
    files = {"checkpoint": results["checkpoint"], "overlays": folder / "overlays", "results": folder / "results.md"}
    files |= {"charts": ", ".join(map(str, charts))} if charts else {}
    for name, place in {**files, **(places or {})}.items():
        if place is not None:
            console.print(f"{name + ':':<11} {place}", soft_wrap=True, highlight=False)


def write(results: dict[str, Any], folder: Path) -> None:
    """Write `results.md` and then `results.json` to `folder`, each atomically."""
    results = without_secrets(results)
    files = {"results.md": markdown(results), "results.json": json.dumps(results, indent=2) + "\n"}
    for name, text in files.items():
        with atomic_write(folder / name) as hidden:
            hidden.write_text(text)


def write_confusion(matrix: Tensor, classes: Sequence[str], folder: Path) -> None:
    """Write pixel counts `(num_classes, num_classes)` to `confusion.csv`, and their shares to `confusion.png`.

    Rows are true classes, columns are predicted ones.
    """
    rows = ([name, *counts] for name, counts in zip(classes, matrix.tolist(), strict=True))
    write_csv(folder / "confusion.csv", ["true class", *classes], rows)
    with atomic_write(folder / "confusion.png") as hidden:
        draw_confusion(matrix.numpy(), classes, hidden)


def headline(results: dict[str, Any]) -> str:
    """Return a one-line summary of the scores."""
    part = part_of_split(results["images"], results.get("split_images", 0))
    mean_iou = percent(results["mIoU"])
    if "mIoU_60_classes" in results:
        mean_iou += f" ({percent(results['mIoU_60_classes'])} over 60 classes, with 0 for background)"
    return (
        f"{data_and_split(results)}, protocol {results['protocol']}: "
        f"mIoU {mean_iou}, pixel accuracy {percent(results['pixel_accuracy'])}, "
        f"mean accuracy {percent(results['mean_accuracy'])}{averaged_classes(results)}{f', {part}' if part else ''}"
    )


def class_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each class: its name, and its scores in percent."""
    return [(name, *(percent(results[key][name]) for key in COLUMNS.values())) for name in results["IoU"]]


def class_table(results: dict[str, Any], palette: Sequence[tuple[int, int, int]] | None = None) -> Table:
    """Return the per-class scores as a table for a terminal. With `palette`, classes and IoUs are coloured.

    Many classes are shown in two columns, with fewer scores each; `results.md` has all scores.
    """
    title = f"{data_and_split(results)}, protocol {results['protocol']}"
    rows = [[Text(cell) for cell in row] for row in class_rows(results)]
    for i, (name, row) in enumerate(zip(results["IoU"], rows, strict=True)):
        if palette is not None:
            row[0] = Text.assemble(("■ ", "rgb({},{},{})".format(*palette[i])), name)
            row[1].stylize(_iou_style(results["IoU"][name]))
    if len(rows) <= _MAX_ROWS:
        return _table(title, ["class", *COLUMNS], rows)
    half = -(-len(rows) // 2)
    short = [[row[0], row[1], row[-1]] for row in [*rows, [Text()] * len(rows[0])]]  # class, IoU, pixel share
    pairs = [[*short[i], *short[half + i]] for i in range(half)]
    return _table(title, ["class", "IoU", "share"] * 2, pairs)


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[Text]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, justify="left" if name == "class" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _iou_style(iou: float | None) -> str:
    """Return vermilion, orange or sky blue, from Okabe and Ito's colour-blind safe palette."""
    if iou is None:
        return "dim"
    return "rgb(213,94,0)" if iou < 0.4 else "rgb(230,159,0)" if iou < 0.7 else "rgb(86,180,233)"


def markdown(results: dict[str, Any]) -> str:
    """Return the scores as a Markdown page."""
    table = markdown_table(["class", *COLUMNS], class_rows(results))
    absent = ", ".join(results["absent_classes"])
    note = f"\nClasses without pixels, left out of the mean: {absent}.\n" if absent else ""
    options = ", ".join(f"{key} {value}" for key, value in results["protocol_options"].items())
    weighted, dice = percent(results["frequency_weighted_IoU"]), percent(results["mean_Dice"])
    note += f"\nFrequency-weighted IoU {weighted}, mean Dice {dice}. Confused classes: `confusion.csv`.\n"
    note += f"\nProtocol {results['protocol']}: {options}.\n" if options else ""
    whole = results["images"] == results.get("split_images", results["images"])
    images = f" ({results['images']} images)" if whole else ""
    diagnostics = diagnostics_report.markdown(results.get("diagnostics", {}))
    return f"{headline(results)}{images}.\n{note}\n{table}\n{diagnostics}"
