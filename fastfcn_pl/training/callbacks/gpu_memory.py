"""Peak GPU memory of training."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch


class GpuMemory(L.Callback):
    """Log `train/gpu_memory_gib`: peak memory of tensors since the last log, maximum over GPUs. Does nothing on CPUs.

    Lightning's `DeviceStatsMonitor` logs about a hundred allocator statistics instead.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if pl_module.device.type == "cuda" and every and trainer.global_step % every == 0:
            peak = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
            torch.cuda.reset_peak_memory_stats(pl_module.device)
            pl_module.log("train/gpu_memory_gib", peak, reduce_fx="max", sync_dist=True, batch_size=len(batch["image"]))
