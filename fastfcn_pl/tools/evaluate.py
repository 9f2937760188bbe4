"""Score of a checkpoint on a split."""

from __future__ import annotations

import lightning as L
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config import build, trainer_flags, validation
from fastfcn_pl.config.trust import Trust
from fastfcn_pl.core import provenance
from fastfcn_pl.engine import rank_processes, scoring
from fastfcn_pl.engine.checkpoint import Checkpoint


def evaluate(cfg: DictConfig) -> float:
    """Score `cfg.checkpoint` as it was trained, except for what `cfg` sets, and return the mIoU."""
    trust = Trust.of(cfg.trust, cfg)
    trained = Checkpoint.read(cfg.checkpoint, trust, cfg.data if "_target_" in cfg.data else None)
    run = as_trained(trained, cfg)
    validation.check(run)
    trainer_flags.check_devices(run)
    module = trained.build(run)
    datamodule = build.datamodule(run)
    trained.check_spec(datamodule.spec)
    L.seed_everything(run.seed, workers=True, verbose=False)
    trainer = build.trainer(run)
    trainer_flags.check_strategy(trainer)
    rank_processes.start_with_frozen_job(trainer)
    results = scoring.score(trainer, module, datamodule, cfg.split, build.diagnostics(run, datamodule.spec.num_classes))
    results |= {"checkpoint": cfg.checkpoint, **provenance.environment()}
    if trainer.is_global_zero:
        scoring.report(results, module, cfg.run_dir)
    return results["mIoU"]


def as_trained(trained: Checkpoint, cfg: DictConfig) -> DictConfig:
    """Return `cfg` with network, data and protocol of the run that wrote the checkpoint, unless `cfg` sets them.

    A whole option (`data=camvid`) replaces the run's, a single key (`data.root=...`) changes it, and null keeps it.
    """
    changes = {"data": cfg.data, "protocol": cfg.protocol}
    run = trained.parts(*build.TO_PREDICT, "data", "seed", changes=changes)
    trainer = cfg.trainer.copy()
    if trainer.precision is None:
        trainer.precision = trained.parts("trainer.precision").trainer.precision
    run.update(trainer=trainer, callbacks=cfg.callbacks, logger={}, run_dir=cfg.run_dir)
    run.accelerate, run.diagnostics = cfg.accelerate, cfg.diagnostics
    return OmegaConf.create(OmegaConf.to_container(run, resolve=True))  # type: ignore[return-value]
