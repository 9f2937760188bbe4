"""Norm of the gradients."""

from __future__ import annotations

import lightning as L
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from fastfcn_pl.training.module import SegmentationModule


class GradientNorm(L.Callback):
    """Log `train/grad_norm`, the L2 norm of all gradients before clipping, every `log_every_n_steps` steps.

    It synchronizes with the device once; Lightning's `grad_norm` does so once per parameter.
    """

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: SegmentationModule, optimizer: Optimizer
    ) -> None:
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (trainer.global_step + 1) % every == 0:
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            pl_module.log("train/grad_norm", get_total_norm(gradients))
