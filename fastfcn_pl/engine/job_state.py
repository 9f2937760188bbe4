"""A job whose folder is there from a start before: its work is kept, and is never taken for that of another job."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config.resolvers import KEPT
from fastfcn_pl.core.atomic_io import disk_errors_reported
from fastfcn_pl.core.redaction import without_secrets
from fastfcn_pl.core.types import UserError, differences, listed

LOCK = ".lock"
"""A file in a job's folder, on disks that do not lock folders."""
_LINGERING = 10.0
"""Seconds to wait for a process that is about to end."""


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
    if not results.is_file() and not last.is_file():
        return Before.NOT_TRAINED, last
    config = folder / ".hydra" / "config.yaml"
    if config.is_file():
        there, here = _plain(OmegaConf.load(config)), _plain(OmegaConf.create(OmegaConf.to_yaml(cfg)))
        if found := differences(there, here):
            keys = listed([f"{key}: {then} then, {now} now" for key, then, now in found], most=3)
            raise UserError(
                f"{folder} holds a job that was configured otherwise ({keys}): take another folder (hydra.run.dir, "
                "hydra.sweep.dir), or remove that one"
            )
    return (Before.DONE if results.is_file() else Before.STOPPED), last


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


class Claim:
    """This process's lock on the folder of a job. It ends with the process, however that ends."""

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        """Wait a little for another process; raises UserError if it stays, or if the folder cannot be made.

        A `shared` claim waits for nobody, and others may have one, too.
        """
        self.folder = folder
        self._descriptor: int | None = None
        kind, end = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX), time.monotonic() + _LINGERING
        with disk_errors_reported(folder):
            while True:
                _make(folder)
                try:
                    self._descriptor = _lock(folder, kind)
                    return
                except (BlockingIOError, FileNotFoundError) as error:  # not found: removed by the one that had it
                    if shared:
                        return
                    if time.monotonic() > end:
                        raise UserError(
                            f"another process is at work in {folder}: wait for its end, or end it"
                        ) from error
                    time.sleep(0.1)

    def is_only_one(self) -> bool:
        """Tell whether no other process has claimed the folder; False if its disk has no locks."""
        if self._descriptor is None:
            return False
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which asking for more has given up
            return False
        return True

    def end(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # as below /proc
        raise UserError(f"{folder} cannot be made ({error.strerror}): take another folder") from error


def _lock(folder: Path, kind: int) -> int | None:
    """Return what holds a lock on `folder`, None if its disk has no locks; raises BlockingIOError if another has it.

    NFS locks files that are open to be written, not folders.
    """
    for path, flags in ((folder, os.O_RDONLY), (folder / LOCK, os.O_RDWR | os.O_CREAT)):
        descriptor = os.open(path, flags)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            if not os.path.samestat(os.stat(path), os.fstat(descriptor)):
                raise BlockingIOError  # made anew by another
            return descriptor
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, (BlockingIOError, FileNotFoundError)):
                raise
    return None


@contextmanager
def alone(*folders: Path, shared: bool = False) -> Iterator[list[Claim]]:
    """Keep other processes from the job in `folders` meanwhile; raises UserError if one is at work there already."""
    with ExitStack() as ends:
        claims = []
        for folder in sorted(set(folders)):  # in one order, so that no two wait for each other
            claims.append(Claim(folder, shared=shared))  # each is given up if the next one fails
            ends.callback(claims[-1].end)
        yield claims


def _plain(cfg: Any) -> dict[str, Any]:
    """Return what a job does as a file says it, its interpolations as they stand; the start it goes on from aside."""
    content: dict[str, Any] = without_secrets(OmegaConf.to_container(cfg, resolve=False))
    return {key: value for key, value in content.items() if key not in ("checkpoint", "debug", "trust")}
