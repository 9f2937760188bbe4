"""Training, and the score of the best checkpoint."""

from __future__ import annotations

import os
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig

from fastfcn_pl.config import build, trainer_flags, validation
from fastfcn_pl.config.stored_config import storable_config
from fastfcn_pl.config.trust import Trust
from fastfcn_pl.core import provenance
from fastfcn_pl.core.redaction import redacted
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import class_weights, hydra_job, match, rank_processes, resume, scoring, startup_messages
from fastfcn_pl.engine.checkpoint import Checkpoint
from fastfcn_pl.models.cost import cost
from fastfcn_pl.training.callbacks.cost_summary import CostSummary
from fastfcn_pl.training.callbacks.last_checkpoint import LastCheckpoint
from fastfcn_pl.training.loggers import closing_wandb, new_id, places_to_look, rewind
from fastfcn_pl.training.module import SegmentationModule


def train(cfg: DictConfig) -> float:
    """Run the experiment that `cfg` describes, write its folder, and return the mIoU of its best checkpoint.

    `cfg.resume` continues a stopped run as it was configured, except for what the command line sets. With
    `cfg.checkpoint` a new run starts from the weights of that file.
    """
    stopped = resume.StoppedRun.read(cfg) if cfg.resume is not None else None
    if stopped is not None:
        cfg = stopped.config(cfg, hydra_job.overrides())
    if stopped is not None or cfg.checkpoint is not None:
        build.without_pretrained(cfg)
    validation.check(cfg)
    trainer_flags.check(cfg)
    for logger in cfg.logger.values():
        if "id" in (logger or {}) and logger.id is None:
            logger.id = new_id()
    environment = provenance.environment()  # before training, during which the checkout may change
    choices = hydra_job.choices(cfg.run_dir if stopped else None)
    metadata = {"choices": choices, **environment, **match.results(cfg)}
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = build.datamodule(cfg)
    datamodule.prepare_data()
    class_weights.resolve(cfg, datamodule)
    startup_messages.step("train: building the network")
    module = build.module(cfg, datamodule.spec)
    build.diagnostics(cfg, datamodule.spec.num_classes)  # so that a mistake in them is found before training
    trainer = build.trainer(cfg)
    trainer_flags.check_strategy(trainer)
    rank_processes.start_with_frozen_job(trainer)
    trainer_flags.check_batches(trainer, datamodule)
    if stopped is not None:
        stopped.prepare(trainer, module, datamodule)
    elif cfg.checkpoint is not None:
        loaded = resume.start_from(cfg.checkpoint, module)
        if trainer.is_global_zero:
            print(loaded)
    with closing_wandb(cfg.run_dir):
        for logger in trainer.loggers:
            rewind(logger, stopped.steps_logged if stopped else 0)
            logger.log_hyperparams(redacted({**storable_config(cfg), **environment}))
        for name, place in (places_to_look(trainer.loggers) or {}).items():
            print(f"{name}: {place}")
        startup_messages.step("train: reading the first images")
        trainer.fit(module, datamodule=datamodule, ckpt_path=stopped.path if stopped else None, weights_only=True)
        return score_best(cfg, trainer, module, metadata)


def score_best(cfg: DictConfig, trainer: L.Trainer, trained: SegmentationModule, metadata: dict[str, Any]) -> float:
    """Score the best checkpoint of a finished run on `val`; write the results, and `metadata` with them."""
    steps, epochs = trainer.global_step, trainer.current_epoch
    if steps == 0:
        raise UserError(
            "training ended before its first step, so that there is nothing to score: raise trainer.max_time"
        )
    best = best_checkpoint(cfg, trainer, trained)
    checkpoint = Checkpoint.read(best, Trust.of(cfg.trust, cfg))
    config = cfg.copy()  # not the checkpoint's, which lacks values from the environment
    build.without_pretrained(config)
    module = checkpoint.build(config)
    module.accelerate = trained.accelerate
    costs = cost_of(trainer, module)
    startup_messages.step(f"train: scoring {best}")
    diagnostics = build.diagnostics(cfg, module.spec.num_classes)
    results = scoring.score(trainer, module, trainer.datamodule, "val", diagnostics)  # type: ignore[attr-defined]
    results |= {"parameters": costs["parameters"], "gmacs": costs["gmacs"], "cost": costs}
    results |= {"checkpoint": best, "checkpoint_step": checkpoint.training_state["global_step"]}
    results |= {"steps": steps, "epochs": epochs, "seed": cfg.seed, "train_seconds": train_seconds(trainer), **metadata}
    if trainer.is_global_zero:
        scoring.report(results, module, cfg.run_dir, places_to_look(trainer.loggers))
    return float("nan") if results["mIoU"] is None else results["mIoU"]


def cost_of(trainer: L.Trainer, module: SegmentationModule) -> dict[str, Any]:
    """Return the cost that `CostSummary` measured before training; without that callback, only what can be counted."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, CostSummary) and callback.measured:
            return callback.measured
    total = cost(module.model, (512, 512))["total"]
    return {**vars(total), "latency_ms": None, "size": [512, 512]}


def train_seconds(trainer: L.Trainer) -> float | None:
    """Return the seconds of training and validation in all sessions of the run; None without a `Timer` callback."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    return round(timers[0].time_elapsed("train"), 1) if timers else None


def best_checkpoint(cfg: DictConfig, trainer: L.Trainer, trained: SegmentationModule) -> str:
    """Return the path of the best checkpoint; the last one is validated first if that has not been done."""
    last = os.path.relpath(f"{cfg.run_dir}/checkpoints/last.ckpt")
    if not any(isinstance(callback, LastCheckpoint) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        trainer.save_checkpoint(last)
    keeper: Any = trainer.checkpoint_callback
    if not getattr(keeper, "best_model_path", ""):
        return last
    if trained.scored_step != trainer.global_step:
        trainer.validate(trained, datamodule=trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
        score = trainer.callback_metrics[keeper.monitor]
        if (score - keeper.best_model_score) * (1 if keeper.mode == "max" else -1) > 0:
            return last
    return os.path.relpath(keeper.best_model_path)
