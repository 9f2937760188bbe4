"""What the network costs, before training starts."""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from fastfcn_pl.models.cost import cost
from fastfcn_pl.module import SegmentationModule


class CostSummary(L.Callback):
    """Print parameters and GMACs of the network's parts, for one image of `size` `[height, width]`; log the totals."""

    def __init__(self, *, size: Sequence[int]) -> None:
        self.size = (size[0], size[1])

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        costs = cost(pl_module.model, self.size)
        table = Table(title=f"{type(pl_module.model).__name__} at {self.size[0]}x{self.size[1]}", title_justify="left")
        table.add_column("part")
        table.add_column("parameters", justify="right")
        table.add_column("GMACs", justify="right")
        for part, it in costs.items():
            table.add_row(part, f"{it.parameters:,}", f"{it.gmacs:.2f}", end_section=part == list(costs)[-2])
        Console().print(table)
        for logger in trainer.loggers:
            logger.log_hyperparams({"parameters": costs["total"].parameters, "gmacs": costs["total"].gmacs})
