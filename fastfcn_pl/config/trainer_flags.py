"""Checks of the Trainer's flags: those that cannot work here are rejected before training."""

from __future__ import annotations

import re
from typing import Any

import lightning as L
import torch
from lightning.pytorch.profilers import PyTorchProfiler
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from omegaconf import DictConfig

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.data.samplers import TrainSampler

_MAX_SEED = 2**32 - 1
_REJECTED: dict[str, tuple[tuple[object, ...], str]] = {
    "logger": ((None,), "select loggers with logger=none, logger=tensorboard, ..."),
    "callbacks": ((None,), "set callbacks with ~callbacks.progress, +callbacks.mine._target_=..."),
    "enable_checkpointing": ((None, True), "the final score needs a checkpoint: leave this flag out"),
    "model_registry": (
        (None,),
        "checkpoints are kept in the run's folder: upload one to W&B with callbacks.files.checkpoint=true",
    ),
    "barebones": (
        (None, False),
        "it writes no checkpoint to score: measure speed with python -m fastfcn_pl.benchmark",
    ),
    "overfit_batches": (
        (None, 0),
        "each epoch samples other images: list a few images in a split, and train on that split",
    ),
    "use_distributed_sampler": ((None, False), "our samplers already distribute images to ranks: leave this flag out"),
}
"""Allowed values, and the reason to reject any other."""
_SHARDING = re.compile("fsdp|deepspeed|modelparallel", re.IGNORECASE)
"""Part of the names of Lightning's strategies that shard parameters, and of their classes."""
_NONZERO = (
    *("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval", "limit_train_batches"),
    *("limit_test_batches", "max_epochs", "max_steps", "devices", "num_nodes"),
)
"""Flags with which nothing is done if they are 0."""
_MINIMUM = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "log_every_n_steps": 0, "gradient_clip_val": 0}
_MINIMUM |= {"num_sanity_val_steps": -1}
"""Smallest values of flags for which Lightning itself accepts any value."""


def check(cfg: DictConfig) -> None:
    """Raise UserError for the first invalid value of `cfg.trainer`, or for an invalid seed."""
    if not 0 <= cfg.seed <= _MAX_SEED:
        raise UserError(f"seed={cfg.seed}: use a whole number from 0 to {_MAX_SEED}")
    check_devices(cfg)
    for name, (allowed, reason) in _REJECTED.items():
        if (value := cfg.trainer.get(name)) not in allowed:
            raise UserError(f"trainer.{name}={str(value).lower() if isinstance(value, bool) else value}: {reason}")
    for name in _NONZERO:
        value = cfg.trainer.get(name)
        if value == 0 and not isinstance(value, bool):
            raise UserError(f"trainer.{name}=0 leaves nothing to do: set it to 1 or more, or leave it out")
    for name, minimum in _MINIMUM.items():
        value = cfg.trainer.get(name)
        if value is not None and value < minimum:
            raise UserError(f"trainer.{name}={value}: use {minimum} or more")
    if (deterministic := cfg.trainer.get("deterministic")) not in (None, True, False, "warn"):
        raise UserError(f"trainer.deterministic={deterministic}: use true, false or warn")


def check_devices(cfg: DictConfig) -> None:
    """Raise UserError for a strategy that shards parameters, or for devices that a CPU does not have."""
    accelerator, strategy, devices = cfg.trainer.accelerator, cfg.trainer.strategy, cfg.trainer.devices
    if _SHARDING.search(str(strategy)):
        raise UserError(
            f"trainer.strategy={strategy}: optimizer groups, averaged weights and checkpoints take whole parameters, "
            "not shards: use trainer.strategy=ddp"
        )
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not has_gpu)
    if on_cpu and devices != "auto" and not str(devices).isdigit():
        raise UserError(
            f"trainer.devices={devices}: CPUs are not numbered: use a number of processes, or auto, which is one"
        )


def profiler_override(cfg: DictConfig) -> dict[str, Any]:
    """Return a replacement for `profiler: pytorch`: Lightning's default adds module hooks, which cannot be copied."""
    if cfg.trainer.get("profiler") != "pytorch":
        return {}
    return {"profiler": PyTorchProfiler(f"{cfg.trainer.default_root_dir}/profile", record_module_names=False)}


def check_strategy(trainer: L.Trainer) -> None:
    """Raise UserError for strategies whose processes cannot return the trained network."""
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            "trainer.strategy: spawned or forked processes exit after training, so the network cannot be scored: use "
            "trainer.strategy=ddp"
        )


def check_batches(trainer: L.Trainer, datamodule: SegmentationDataModule) -> None:
    """Raise UserError if limits leave no batch to train on or to score, or if an epoch ends before its validation."""
    images, world_size = len(datamodule.source(datamodule.train_split)), trainer.world_size
    batches = len(TrainSampler(images, datamodule.seed, 0, world_size)) // datamodule.batch_size
    for name, count in (("train", batches), ("test", -(-len(datamodule.source("val")) // world_size))):
        limit: Any = getattr(trainer, f"limit_{name}_batches")
        if isinstance(limit, float) and count and int(count * limit) == 0:
            raise UserError(
                f"trainer.limit_{name}_batches={limit} of {count} batches leaves none: raise it, or use a whole number"
            )
        if name == "train":
            batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    interval = trainer.val_check_interval
    if isinstance(interval, int) and interval > batches and trainer.check_val_every_n_epoch is not None:
        raise UserError(
            f"trainer.val_check_interval={interval} is more than the {batches} batches of an epoch: lower it, or set "
            "trainer.check_val_every_n_epoch=null to count batches across epochs"
        )
