"""OmegaConf resolvers, used in configurations as `${name:arguments}`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from fastfcn_pl.core.types import UserError

KEPT = ("results.json", "checkpoints/last.ckpt")
"""Files in a run's folder with which a restarted run resumes: its results, or else its last checkpoint."""


def run_folder(resume: str | None, runs: str, name: str) -> str:
    """Return the folder of a job: `runs`/`name` for a new run, else the folder of the run that `resume` names.

    `last` is the newest `last.ckpt` of the runs in `runs`. Raises UserError if there is none. `auto` raises UserError,
    too, since it needs a folder that is set on the command line.
    """
    if resume is None:
        return f"{runs}/{name}"
    if resume == "auto":
        raise UserError(
            "resume=auto resumes from the run's folder, which must be the same at each start: set "
            f"hydra.run.dir={runs}/<name>"
        )
    if resume == "last":
        checkpoints = sorted(Path(runs).glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
        if not checkpoints:
            raise UserError(f"resume=last: no run in {runs}/ has a checkpoints/last.ckpt yet; leave resume out")
        return str(checkpoints[-1].parents[1])
    path = Path(resume)
    if not path.is_file():
        raise UserError(f"resume={resume}: no such file; checkpoints are in a run's folder checkpoints/")
    if path.parent.name != "checkpoints":
        raise UserError(
            f"resume={resume} is not in the folder checkpoints/ of a run, so that run cannot be resumed: "
            "move it back, or start a new run from its weights with checkpoint="
        )
    return str(path.parents[1])


def in_chans(bands: Any) -> int:
    """Return the channels of an image with these `data.bands`: a list, a list for each of several files, null for RGB.

    Values of another kind count as one; the data set refuses them.
    """
    if bands is None:
        return 3
    return max(1, sum(len(file) if isinstance(file, ListConfig) else 1 for file in bands))


def case(value: str, cases: dict[str, Any]) -> Any:
    """Return the entry of `cases` for the last dotted component of `value`, such as the class name of a `_target_`.

    A study uses it for values that depend on another choice, such as the weight of a loss on the head.
    """
    name = value.rsplit(".", 1)[-1]
    if name not in cases:
        raise UserError(f"this study has no case for {name}, only for {', '.join(cases)}: set the key to a plain value")
    return cases[name]


def run_group() -> str | None:
    """Return the group of this run in W&B: the last two folders of its sweep, or the name of its study."""
    if not HydraConfig.initialized():
        return None
    job = HydraConfig.get()
    if job.mode is RunMode.MULTIRUN:
        return "/".join(Path(job.sweep.dir).parts[-2:])
    return job.job.config_name if job.job.config_name != "train" else None


def choices() -> DictConfig:
    """Return the selected option of each config group of this job, such as `model/neck: jpu`; empty outside a job.

    If a key has turned an option into another part, the name of that part is returned; see `composition`.
    """
    selected = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return OmegaConf.create({k: v for k, v in selected.items() if v is not None and not k.startswith("hydra/")})


ALL: tuple[Callable[..., Any], ...] = (run_folder, case, in_chans, run_group, choices)
