"""Table of parameters, GMACs, memory and latency of the network's parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from fastfcn_pl.models.cost import cost, latency
from fastfcn_pl.training.callbacks import log_media
from fastfcn_pl.training.module import SegmentationModule


class CostSummary(L.Callback):
    """Print the cost of each part of the network for one image before training starts, and log the totals.

    The image has `size` `[height, width]`. Latency is the median of `repeats` float32 runs on the training device;
    with `repeats` 0 it is not measured.
    """

    def __init__(self, *, size: Sequence[int], repeats: int) -> None:
        self.size, self.repeats = (size[0], size[1]), repeats
        self.measured: dict[str, Any] = {}

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        model = pl_module.model
        costs, seconds = cost(model, self.size), {}
        if self.repeats > 0:
            x = torch.zeros(1, model.in_chans, *self.size, device=pl_module.device)
            seconds = latency(model, x.contiguous(memory_format=pl_module.memory_format), self.repeats, warm_up=1)
        title = f"{type(model).__name__} at {self.size[0]}x{self.size[1]} on {pl_module.device}"
        table = Table("part", title=title, title_justify="left")
        for column in ("parameters", "GMACs", "peak MiB", "ms"):
            table.add_column(column, justify="right")
        for part, part_cost in costs.items():
            milliseconds = f"{1000 * seconds[part]:.1f}" if part in seconds else "-"
            row = (f"{part_cost.parameters:,}", f"{part_cost.gmacs:.2f}", f"{part_cost.peak_mib:.0f}", milliseconds)
            table.add_row(part, *row, end_section=part == list(costs)[-2])
        Console().print(table)
        total = costs["total"]
        totals = {"parameters": total.parameters, "gmacs": total.gmacs, "peak_mib": total.peak_mib}
        totals |= {"latency_ms": 1000 * seconds["total"]} if seconds else {}
        for logger in trainer.loggers:
            logger.log_hyperparams(totals)
        self.measured = {"latency_ms": None, **totals, "size": list(self.size)}
        log_media.update_summary(trainer, totals)
