"""The file that `checkpoint=` names: a file, the best checkpoint of a run's folder, or that of the newest run."""

from __future__ import annotations

import json
from pathlib import Path
from pkgutil import resolve_name

from omegaconf import DictConfig

from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import startup_messages
from fastfcn_pl.engine.hydra_job import overrides

LAST = "last"
_RUNS = Path("runs")
_KEPT = ("checkpoints/best.ckpt", "checkpoints/last.ckpt")
_DEPTHS = ("*", "*/*", "*/*/*")
"""Folders of runs below `runs`: hydra.run.dir=runs/<name>, runs/<study>/<time>, and the jobs of a sweep."""


def locate(checkpoint: str | Path) -> Path:
    """Return the file that `checkpoint` names; raises UserError if a folder or `runs` holds none.

    A run's folder stands for the checkpoint that was scored, or while it trains, for its best one.
    """
    if str(checkpoint) == LAST:
        files = [file for depth in _DEPTHS for kept in _KEPT for file in _RUNS.glob(f"{depth}/{kept}")]
        if not files:
            raise UserError(f"checkpoint=last: no run in {_RUNS}/ has a checkpoint; give a file or a run's folder")
        return locate(max(files, key=lambda file: file.stat().st_mtime).parents[1])
    path = Path(checkpoint)
    is_run = path.is_dir() and not (path / "config.json").is_file()  # else a network's folder, which is read whole
    return _of_run(path) if is_run else path


def _of_run(folder: Path) -> Path:
    results = folder / "results.json"
    try:
        scored = Path(json.loads(results.read_text())["checkpoint"]).name if results.is_file() else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"checkpoint={folder}: {results} names no checkpoint; use a file in the run's checkpoints/"
        ) from error
    names = _KEPT if scored is None else (f"checkpoints/{scored}",)  # the folder may have been moved
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"checkpoint={folder}: no {names[0]} in this folder; use a run's folder")
    return file


def resolve_checkpoint(cfg: DictConfig) -> None:
    """Replace a run's folder or `last` in `cfg.checkpoint` by the file, so that all processes read the same one."""
    if cfg.get("checkpoint"):
        cfg.checkpoint = str(locate(cfg.checkpoint))


def say_choice(cfg: DictConfig) -> None:
    """Print the file and its step if the command line names a run's folder or `last`. It imports torch."""
    given = [word.partition("=")[2].strip("'\"") for word in overrides() if word.startswith("checkpoint=")]
    if not given or cfg.get("checkpoint") in (None, given[-1]) or Path(given[-1]).is_file():
        return
    step_of = resolve_name("fastfcn_pl.engine.checkpoint_file:step_of")
    startup_messages.step(f"checkpoint: {cfg.checkpoint}, step {step_of(cfg.checkpoint)}")
