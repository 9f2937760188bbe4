"""How much memory of the GPU training takes."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch


class GpuMemory(L.Callback):
    """Log `train/gpu_memory_gib`, the most that tensors took since the last log on any of the GPUs; nothing on CPUs.

    Lightning's `DeviceStatsMonitor` logs a hundred numbers of the allocator, most of them for its authors.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if pl_module.device.type == "cuda" and every and trainer.global_step % every == 0:
            peak = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
            torch.cuda.reset_peak_memory_stats(pl_module.device)
            pl_module.log("train/gpu_memory_gib", peak, reduce_fx="max", sync_dist=True, batch_size=len(batch["image"]))
