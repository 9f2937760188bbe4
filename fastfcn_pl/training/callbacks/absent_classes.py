"""One line about classes that training or a score never meets."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fastfcn_pl.core.types import listed
from fastfcn_pl.training.module import SegmentationModule


class AbsentClasses(L.Callback):
    """Say once in the first epoch which classes no training crop has held, and which no mask of `val` holds.

    Data sets whose masks were all read before training have already named them.
    """

    def __init__(self) -> None:
        self._seen: Tensor | None = None
        self._said: set[str] = set()

    def on_train_start(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        if trainer.global_step == 0:
            self._seen = torch.zeros(256, dtype=torch.bool, device=pl_module.device)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        if self._seen is not None:
            self._seen.index_fill_(0, batch["target"].flatten().long(), True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        if self._seen is None:
            return
        seen = trainer.strategy.reduce(self._seen.int(), reduce_op="max") > 0
        self._seen = None
        absent = [name for name, there in zip(pl_module.spec.classes, seen.tolist(), strict=False) if not there]
        self._say(trainer, "train", absent, "no training crop of the first epoch holds")

    def on_validation_end(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:  # type: ignore[override]
        if trainer.sanity_checking or pl_module.scored_part:
            return
        share = pl_module.scores.share
        absent = [name for name, pixels in zip(pl_module.spec.classes, share.tolist(), strict=True) if not pixels]
        self._say(trainer, "val", absent, "no mask of val holds")

    @rank_zero_only
    def _say(self, trainer: L.Trainer, split: str, absent: list[str], line: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        known: list[str] = data.absent_classes.get(data.train_split if split == "train" else split, [])
        new = [name for name in absent if name not in known]
        if new and split not in self._said:
            print(f"{line} {listed(new, 5)}", flush=True)
        self._said.add(split)
