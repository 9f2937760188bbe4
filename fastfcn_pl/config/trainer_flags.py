"""Flags of Lightning's Trainer that cannot work here, refused before training with the reason and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fastfcn_pl.core.types import UserError

if TYPE_CHECKING:
    import lightning as L

    from fastfcn_pl.data.datamodule import SegmentationDataModule

_LARGEST_SEED = 2**32 - 1
_REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "logger": ((None,), "loggers are options: logger=none, logger=tensorboard, ..."),
    "callbacks": ((None,), "callbacks are keys of their own: ~callbacks.progress, +callbacks.mine._target_=..."),
    "enable_checkpointing": ((None, True), "the final score is that of a checkpoint: leave it out"),
    "model_registry": ((None,), "the run's folder keeps checkpoints; callbacks.files.checkpoint=true sends one to W&B"),
    "barebones": ((None, False), "it leaves no checkpoint to score: measure speed with python -m fastfcn_pl.benchmark"),
    "overfit_batches": ((None, 0), "each epoch draws its images anew: list a few in a split, and train on that one"),
    "use_distributed_sampler": (
        (None, False),
        "our samplers deal out images to ranks, each of them once: leave it out",
    ),
}
"""Values that are fine, and the reason to refuse others."""
_NEEDED = (
    *("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval", "limit_train_batches"),
    *("limit_test_batches", "max_epochs", "max_steps", "devices", "num_nodes"),
)
"""Flags that leave nothing to do if they are 0."""
_LEAST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "log_every_n_steps": 0, "gradient_clip_val": 0}
_LEAST |= {"num_sanity_val_steps": -1}
"""The smallest values, where Lightning itself takes any."""


def check(cfg: DictConfig) -> None:
    """Raise UserError for the first value of `cfg.trainer`, or for a seed, with which no run can end well."""
    if not 0 <= cfg.seed <= _LARGEST_SEED:
        raise UserError(f"seed={cfg.seed}: use a whole number from 0 to {_LARGEST_SEED}")
    for name, (fine, reason) in _REFUSED.items():
        if (value := cfg.trainer.get(name)) not in fine:
            raise UserError(f"trainer.{name}={str(value).lower() if isinstance(value, bool) else value}: {reason}")
    for name in _NEEDED:
        value = cfg.trainer.get(name)
        if value == 0 and not isinstance(value, bool):
            raise UserError(f"trainer.{name}=0 leaves nothing to do: set it to 1 or more, or leave it out")
    for name, least in _LEAST.items():
        value = cfg.trainer.get(name)
        if value is not None and value < least:
            raise UserError(f"trainer.{name}={value}: give {least} or more")
    if (deterministic := cfg.trainer.get("deterministic")) not in (None, True, False, "warn"):
        raise UserError(f"trainer.deterministic={deterministic}: give true, false or warn")


def adapted(cfg: DictConfig) -> dict[str, Any]:
    """Return flags of `cfg.trainer` as objects: torch's profiler names no modules, whose hooks cannot be copied."""
    from lightning.pytorch.profilers import PyTorchProfiler

    if cfg.trainer.get("profiler") != "pytorch":
        return {}
    return {"profiler": PyTorchProfiler(f"{cfg.trainer.default_root_dir}/profile", record_module_names=False)}


def check_strategy(trainer: L.Trainer) -> None:
    """Raise UserError for strategies that train in processes which cannot hand the trained network back."""
    from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            "trainer.strategy: processes that are spawned or forked end with training, and nothing is left to score: "
            "use trainer.strategy=ddp"
        )


def check_batches(trainer: L.Trainer, datamodule: SegmentationDataModule) -> None:
    """Raise UserError if limits leave no batch to train on or to score, or if no validation comes within an epoch."""
    from fastfcn_pl.data.samplers import TrainSampler

    images, world_size = len(datamodule.source(datamodule.train_split)), trainer.world_size
    batches = len(TrainSampler(images, datamodule.seed, 0, world_size)) // datamodule.batch_size
    for name, count in (("train", batches), ("test", -(-len(datamodule.source("val")) // world_size))):
        limit: Any = getattr(trainer, f"limit_{name}_batches")
        if isinstance(limit, float) and count and int(count * limit) == 0:
            raise UserError(
                f"trainer.limit_{name}_batches={limit} of {count} batches is none: raise it, or give a number"
            )
        if name == "train":
            batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    interval = trainer.val_check_interval
    if isinstance(interval, int) and interval > batches and trainer.check_val_every_n_epoch is not None:
        raise UserError(
            f"trainer.val_check_interval={interval} is more than the {batches} batches of an epoch: lower it, or set "
            "trainer.check_val_every_n_epoch=null to count batches over epochs"
        )
