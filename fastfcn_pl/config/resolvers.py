"""What configurations compute, as `${name:arguments}`: folders of runs, and what differs from job to job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.core.types import UserError

KEPT = ("results.json", "checkpoints/last.ckpt")
"""What a run leaves, in its folder, that a later start of it goes on with."""


def run_folder(checkpoint: str | None, runs: str, name: str) -> str:
    """Return the folder of a job: `name` below `runs` for a new run, else that of the run which wrote `checkpoint`.

    `last` stands for the youngest `last.ckpt` of the runs in `runs`. Raises UserError where there is none, and for
    `auto`, for which the command line names the folder.
    """
    if checkpoint is None:
        return f"{runs}/{name}"
    if checkpoint == "auto":
        raise UserError(
            "checkpoint=auto goes on with what is in the run's folder, which has to be the same at each start: set "
            f"hydra.run.dir={runs}/<name>"
        )
    if checkpoint == "last":
        found = sorted(Path(runs).glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise UserError(f"checkpoint=last: no run below {runs}/ has a checkpoints/last.ckpt yet; start one without")
        return str(found[-1].parents[1])
    path = Path(checkpoint)
    if not path.is_file():
        raise UserError(f"checkpoint={checkpoint}: no such file; a run's are in its folder checkpoints/")
    if path.parent.name != "checkpoints":
        raise UserError(
            f"checkpoint={checkpoint} is not in a run's folder checkpoints/, where the run could go on: "
            "put it back, or start a new run from its weights with init_from="
        )
    return str(path.parents[1])


def case(value: str, cases: dict[str, Any]) -> Any:
    """Return which of the `cases` is for `value`, or for its last word: `EncNetHead` for a `_target_` that ends in it.

    So a study says what differs from one of its jobs to another, such as the weight of a loss by the head.
    """
    name = value.rsplit(".", 1)[-1]
    if name not in cases:
        raise UserError(f"this study has no case for {name}: it knows {', '.join(cases)}; set the key itself")
    return cases[name]


def run_group() -> str | None:
    """Return what this run has in common with others: its sweep's folder, the end of its path, or else its study."""
    if not HydraConfig.initialized():
        return None
    job = HydraConfig.get()
    if job.mode is RunMode.MULTIRUN:
        return "/".join(Path(job.sweep.dir).parts[-2:])
    return job.job.config_name if job.job.config_name != "train" else None


def choices() -> DictConfig:
    """Return the option chosen in each config group, such as `model/neck: jpu`, of this job; empty outside of one.

    An option that keys have turned into another part goes by that part's name: see `composition`.
    """
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return OmegaConf.create({k: v for k, v in chosen.items() if v is not None and not k.startswith("hydra/")})


ALL: tuple[Callable[..., Any], ...] = (run_folder, case, run_group, choices)
