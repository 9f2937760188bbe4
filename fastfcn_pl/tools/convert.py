"""Checkpoints of the official FastFCN and PyTorch-Encoding code and of mmsegmentation, converted to ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig

from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine.checkpoint import Checkpoint, read_published
from fastfcn_pl.training.checkpoint_io import StagedCheckpointIO


def convert(cfg: DictConfig) -> None:
    """Convert `cfg.source` to the checkpoint `cfg.output`, and print what was recognized."""
    output = Path(cfg.output)
    if not output.parent.is_dir():
        raise UserError(f"output={output}: {output.parent} is not a folder")
    published = read_published(cfg.source)
    converted = Checkpoint.of_published(published, cfg.source, cfg.data)
    converted.build()  # raises UserError if weights do not fit
    print(f"{cfg.source} is of {published.source}: {published.architecture} ({converted.spec.name})")
    print(f"{len(published.state)} tensors taken, {len(published.dropped)} left out", *published.dropped, sep="\n  ")
    # Lightning requires these entries to load the checkpoint.
    content: dict[str, Any] = {"state_dict": converted.state_dict, "pytorch-lightning_version": L.__version__}
    content |= {"hyper_parameters": {"config": converted.config, "spec": converted.spec.to_dict()}}
    content |= {"epoch": 0, "global_step": 0, "callbacks": {}, "optimizer_states": [], "lr_schedulers": [], "loops": {}}
    StagedCheckpointIO().save_checkpoint(content, output)
    print(f"written to {output}")
