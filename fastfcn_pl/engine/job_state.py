"""The state of a job in its folder: work of an earlier start is kept, and never taken for that of another job."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config.moved_targets import is_as_before, upgraded
from fastfcn_pl.config.plain_data import parse_yaml, read_yaml
from fastfcn_pl.config.resolvers import KEPT
from fastfcn_pl.core.differences import differences
from fastfcn_pl.core.redaction import without_secrets
from fastfcn_pl.core.types import UserError, listed
from fastfcn_pl.engine.checkpoint_location import LAST

_NOT_COMPARED = ("resume", "debug", "trust", "question", "published", "baseline", "margin")
"""Keys that may differ from start to start of one job: they change nothing that it computes."""


class JobState(Enum):
    """Progress that a job made in earlier starts."""

    NOT_TRAINED = "has nothing to resume"
    STOPPED = "was stopped, and resumes"
    DONE = "is done already"


def state_of(cfg: DictConfig, folder: Path) -> tuple[JobState, Path]:
    """Return how far the job `cfg` came in its `folder`, and the path of the checkpoint to resume it from.

    Raises UserError if the folder holds a job that was configured otherwise.
    """
    results, last = (Path(cfg.run_dir, kept) for kept in KEPT)
    if not results.is_file() and not last.is_file():
        return JobState.NOT_TRAINED, last
    config = folder / ".hydra" / "config.yaml"
    if (there := read_yaml(config)) is not None:
        if not isinstance(there, dict):
            raise UserError(f"{config} cannot be read (it is no mapping): restore or remove it")
        here = parse_yaml(OmegaConf.to_yaml(cfg))  # written as the file was, so that equal values are equal
        changes = differences(_compared(upgraded(there)), _compared(here))
        if changes := [
            (key, then, now) for key, then, now in changes if then is not None or not is_as_before(key, now)
        ]:
            keys = listed([f"{key}: {then} then, {now} now" for key, then, now in changes], most=3)
            raise UserError(
                f"{folder} holds a job that was configured otherwise ({keys}): take another folder (hydra.run.dir, "
                "hydra.sweep.dir), or remove that one"
            )
    return (JobState.DONE if results.is_file() else JobState.STOPPED), last


def check_start(cfg: DictConfig) -> None:
    """Raise UserError unless `checkpoint` and `resume` name one start of training."""
    if cfg.checkpoint == "auto":
        raise UserError("checkpoint=auto is now resume=auto: checkpoint= names weights that a new run starts from")
    if cfg.checkpoint == LAST and (cfg.resume == "auto" or _in_sweep()):
        raise UserError("checkpoint=last would name another run at the next start: give the folder of that run")
    if cfg.resume == "auto":
        return
    if cfg.resume is not None and cfg.checkpoint is not None:
        raise UserError(
            "resume= continues a run from its own checkpoint, and checkpoint= starts a new run from weights: leave one "
            "out (resume=auto takes both)"
        )
    if cfg.resume is not None and _in_sweep():
        raise UserError(
            f"resume={cfg.resume}: a sweep resumes its jobs by itself if it starts again in its folder: leave it out, "
            "and set hydra.sweep.dir"
        )


def _in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def has_work(cfg: DictConfig) -> bool:
    """Set `cfg.resume` to the job's own checkpoint if it was stopped; tell whether there is something left to do."""
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    state, last = state_of(cfg, folder)
    cfg.resume = None
    if state is JobState.STOPPED:
        cfg.resume, cfg.checkpoint = str(last), None
    if state is not JobState.NOT_TRAINED:
        name = f"job {job.job.num} ({job.job.override_dirname})" if job.mode is RunMode.MULTIRUN else "the run"
        print(f"{name} in {os.path.relpath(folder)} {state.value}", flush=True)
    return state is not JobState.DONE


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a configuration that define the job, without secrets."""
    content: dict[str, Any] = without_secrets(config)
    return {key: value for key, value in content.items() if key not in _NOT_COMPARED}
