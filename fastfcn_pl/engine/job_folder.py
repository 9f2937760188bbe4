"""The folders of a job: claimed while it runs, and removed if it ends before it has made anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hydra.core import utils
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine.folder_claim import LOCK, Claim, alone
from fastfcn_pl.training.distributed import is_rank_0

_KEPT = ("checkpoints/*.ckpt", "metrics/metrics.csv", "not_finite", "results.json", "doctor.json")
"""Files that are useful even if an error ended the run."""


@contextmanager
def claimed(cfg: DictConfig) -> Iterator[list[Claim]]:
    """Claim the job's folders: for this process alone if it trains.

    If that fails, the folder that Hydra has made for a single job is removed, unless another process uses it.
    """
    job = HydraConfig.get()
    output_dir = job.runtime.output_dir
    folders = [Path(folder).absolute() for folder in (output_dir, cfg.get("run_dir") or output_dir)]
    if job.mode is RunMode.MULTIRUN and os.path.normpath(job.sweep.subdir) == ".":
        of_sweep = Path(output_dir)  # claimed by the process of the sweep
        folders = [folder for folder in folders if folder != of_sweep]
    with ExitStack() as stack:
        try:
            claims = stack.enter_context(alone(*(folders if is_rank_0() else []), shared="resume" not in cfg))
        except UserError:
            if job.mode is RunMode.RUN:
                _remove_unused(Path(output_dir).absolute())
            raise
        yield claims


def _remove_unused(folder: Path) -> None:
    claim = Claim(folder, shared=True)
    if is_new(folder) and claim.is_only_one():
        remove([folder])
    claim.end()


def write_config(cfg: DictConfig) -> None:
    """Write the job's configuration as Hydra does, but not before the folder is claimed."""
    hydra = HydraConfig.instance().cfg
    assert hydra is not None
    for name, content in (("config", cfg), ("hydra", hydra), ("overrides", HydraConfig.get().overrides.task)):
        utils._save_config(content, f"{name}.yaml", Path(HydraConfig.get().runtime.output_dir, ".hydra"))  # type: ignore[arg-type]


def is_new(folder: Path) -> bool:
    """Tell whether a folder holds only what Hydra and a claim have just written."""
    job = HydraConfig.get()
    return folder != Path(job.runtime.cwd) and set(os.listdir(folder)) <= {".hydra", f"{job.job.name}.log", LOCK}


def remove(folders: list[Path]) -> None:
    """Remove the folders of a run that trained nothing, and the parents that this leaves empty."""
    home = Path(HydraConfig.get().runtime.cwd)
    for folder in folders:
        if any(next(folder.glob(kept), None) for kept in _KEPT):
            continue
        if Path.cwd() == folder:  # hydra.job.chdir
            os.chdir(home)
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # not empty, or just removed by another process
            for parent in folder.parents:
                if parent == home:
                    break
                parent.rmdir()
