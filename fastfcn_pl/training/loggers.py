"""Loggers of a run: W&B, online if the user is logged in and offline otherwise, and a CSV file."""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from fastfcn_pl.core.redaction import redacted, without_secrets
from fastfcn_pl.core.types import UserError
from fastfcn_pl.training.media_logger import MediaLogger
from fastfcn_pl.training.metrics_writer import MetricsWriter
from fastfcn_pl.training.wandb_server import logged_in, server_reachable

_MODES = ("auto", "online", "offline")
_MAX_TAG_LENGTH = 64
_UNTAGGED_GROUPS = re.compile(r"logger|callbacks|diagnostics|trainer|data/loader|.*@")
"""Groups that say nothing about the model or the data, and the terms of a loss."""


def wandb_logger(
    config: dict[str, Any],
    *,
    save_dir: str,
    project: str,
    entity: str | None,
    name: str | None,
    id: str | None,
    group: str | None,
    job_type: str | None,
    tags: Sequence[str],
    choices: Mapping[str, str],
    mode: str,
) -> WandbLogger:
    """Build a W&B logger whose run stores `config` without its secrets.

    `mode` is `online`, `offline` or `auto`: WANDB_MODE if it is set, else online if the user is logged in. Any other
    mode raises UserError. Hydra's `choices` are added to `tags`.

    W&B does not collect the command line, the environment, paths or the git remote, since any of them may hold a
    secret. Commit, versions and hardware are in `config`.
    """
    if mode not in _MODES:
        raise UserError(f"logger.wandb.mode={mode}: use {', '.join(_MODES)}, or logger=none")
    Path(save_dir).mkdir(parents=True, exist_ok=True)  # W&B falls back to a temporary folder if it is missing
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() and server_reachable() else "offline")
    os.environ.setdefault("WANDB_SILENT", "true")  # `how_to_view` says it in one line
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B sends crash reports even from offline runs
    logger = WandbLogger(
        name=without_secrets(name),
        id=id,
        resume="allow",
        save_dir=save_dir,
        project=project,
        entity=entity,
        group=without_secrets(group),
        job_type=job_type,
        tags=[tag[:_MAX_TAG_LENGTH] for tag in dict.fromkeys(without_secrets([*tags, *_choice_tags(choices)]))],
        config=redacted(config),
        mode=mode,
        settings=wandb.Settings(console="off", x_disable_meta=True, disable_git=True, disable_code=True),
    )
    logger._wandb_init.pop("anonymous", None)  # set by Lightning, deprecated by W&B
    return logger


def _choice_tags(choices: Mapping[str, str]) -> list[str]:
    """Return tags such as `neck=jpu` for the choices that distinguish experiments."""
    return [f"{group.split('/')[-1]}={name}" for group, name in choices.items() if not _UNTAGGED_GROUPS.match(group)]


def new_id() -> str:
    """Return the id of a new run in a logger: the agent's id inside a W&B sweep, else a random one."""
    agent_id = os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None
    return agent_id or secrets.token_hex(4)


class MetricsFile(CSVLogger):
    """CSV logger that writes to `folder`; a resumed run appends to the same file."""

    def __init__(self, *, folder: str) -> None:
        super().__init__(save_dir=folder, name="")

    @property
    def version(self) -> None:  # type: ignore[override]
        """None: the run's folder holds one file, and the progress bar shows no version number."""
        return None

    @property
    def log_dir(self) -> str:
        return self.save_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsWriter:
        if self._experiment is None:
            self._experiment = MetricsWriter(self.log_dir)
        return self._experiment  # type: ignore[return-value]


@rank_zero_only
def rewind(logger: Logger, step: int) -> None:
    """Make `logger` forget everything logged at `step` or later. W&B cannot, and keeps it."""
    if isinstance(logger, MetricsFile):
        logger.experiment.rewind(step)
    elif isinstance(logger, TensorBoardLogger):
        logger._kwargs["purge_step"] = step  # TensorBoard then hides later events of earlier files
        Path(logger.log_dir, logger.NAME_HPARAMS_FILE).unlink(missing_ok=True)  # Lightning keeps even a truncated one


@contextmanager
def closing_wandb(run_dir: str) -> Iterator[None]:
    """Finish the W&B run of this process at the end, as failed if an exception passes through.

    Artifacts are staged for upload in `run_dir`, unless WANDB_DATA_DIR names another folder.
    """
    data_dir = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = data_dir or str(Path(run_dir, "wandb"))
    try:
        yield
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    else:
        wandb.finish()
    finally:
        if data_dir is None:
            os.environ.pop("WANDB_DATA_DIR", None)


@rank_zero_only
def places_to_look(loggers: Sequence[Logger]) -> dict[str, str]:
    """Return where to look at this process's run: the name of each logger with its URL or the command that shows it."""
    places = {"W&B run": view} if (view := how_to_view()) else {}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            places["TensorBoard"] = f"tensorboard --logdir {shlex.quote(os.path.relpath(logger.log_dir))}"
        elif isinstance(logger, MediaLogger):
            places[logger.title] = logger.view
    return places


def how_to_view() -> str | None:
    """Return the URL of this process's W&B run, or how to upload it if it is offline; None without a run."""
    run = wandb.run
    if run is None or run.disabled:
        return None
    if run.offline:
        folder = os.path.relpath(Path(run.dir).parent)
        return f"{folder} (offline; upload and view it with: wandb sync {folder})"
    return str(run.url)
