"""A job whose folder is there from a start before: its work is kept, and is never taken for that of another job."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.contracts import UserError, differences, listed
from fastfcn_pl.redaction import without_secrets
from fastfcn_pl.resolvers import KEPT

_LINGERING = 10.0
"""Seconds for which the workers of a run that was killed may live on."""


class Before(Enum):
    """How far a job came when it was started before."""

    NOT_TRAINED = "has nothing to go on with"
    STOPPED = "was stopped, and goes on"
    DONE = "is done already"


def before(cfg: DictConfig, folder: Path) -> tuple[Before, Path]:
    """Return how far the job `cfg` came in its `folder`, and the checkpoint that it goes on from where it was stopped.

    Raises UserError where the folder is that of a job which was configured otherwise.
    """
    results, last = (Path(cfg.run_dir, kept) for kept in KEPT)
    config = folder / ".hydra" / "config.yaml"
    if config.is_file():  # Hydra's, of the start that came to something: see `resolvers.job_folder`
        there, here = _plain(OmegaConf.load(config)), _plain(OmegaConf.create(OmegaConf.to_yaml(cfg)))
        if found := differences(there, here):
            keys = listed([f"{key}: {then} then, {now} now" for key, then, now in found], most=3)
            raise UserError(
                f"{folder} holds a job that was configured otherwise ({keys}): take another folder (hydra.run.dir, "
                "hydra.sweep.dir), or remove that one"
            )
    if results.is_file():
        return Before.DONE, last
    return (Before.STOPPED if last.is_file() else Before.NOT_TRAINED), last


def goes_on(cfg: DictConfig) -> bool:
    """Set the checkpoint that the job `cfg` goes on from, if it was stopped; tell whether it has something to do."""
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    state, last = before(cfg, folder)
    cfg.checkpoint = str(last) if state is Before.STOPPED else None
    if state is not Before.NOT_TRAINED:
        name = f"job {job.job.num} ({job.job.override_dirname})" if job.mode is RunMode.MULTIRUN else "the run"
        print(f"{name} in {os.path.relpath(folder)} {state.value}", flush=True)
    return state is not Before.DONE


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from the run in `folder` meanwhile; raises UserError where one is at work there already."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + _LINGERING
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise UserError(f"another process is at work in {folder}: wait for its end, or end it") from error
                time.sleep(0.1)
            except OSError:  # a disk without locks
                break
        yield
    finally:
        os.close(descriptor)


def _plain(cfg: Any) -> dict[str, Any]:
    """Return what a job does as a file says it, its interpolations as they stand; the start it goes on from aside."""
    content: dict[str, Any] = without_secrets(OmegaConf.to_container(cfg, resolve=False))
    return {key: value for key, value in content.items() if key not in ("checkpoint", "debug", "trust")}
