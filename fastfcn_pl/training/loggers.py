"""Where metrics go: W&B, online when the user is logged in, offline otherwise, and closed whatever happens; a file."""

from __future__ import annotations

import netrc
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from fastfcn_pl.core.reachability import check_server
from fastfcn_pl.core.redaction import redacted, without_secrets
from fastfcn_pl.core.types import UserError
from fastfcn_pl.training.metrics_writer import MetricsWriter

_MODES = ("auto", "online", "offline")
_LONGEST_TAG = 64
_UNTAGGED = re.compile(r"logger|callbacks|trainer|data/loader|.*@")


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
    """Build a logger whose run starts with `config`, without its secrets. `mode` auto is online where the user is
    logged in; WANDB_MODE wins over auto. Raises UserError for another mode.

    Hydra's `choices` become tags, behind `tags`. W&B collects neither the command line nor the environment, paths or
    the address of the git remote, in all of which a secret may be: commit, versions and hardware are in `config`.
    """
    if mode not in _MODES:
        raise UserError(f"logger.wandb.mode={mode}: use {', '.join(_MODES)}, or logger=none")
    Path(save_dir).mkdir(parents=True, exist_ok=True)  # W&B falls back to a temporary folder where it is missing
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() and _answers() else "offline")
    os.environ.setdefault("WANDB_SILENT", "true")  # `how_to_view` says it in one line
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B reports on itself, from offline runs, too
    logger = WandbLogger(
        name=without_secrets(name),
        id=id,
        resume="allow",
        save_dir=save_dir,
        project=project,
        entity=entity,
        group=without_secrets(group),
        job_type=job_type,
        tags=[tag[:_LONGEST_TAG] for tag in dict.fromkeys(without_secrets([*tags, *_choice_tags(choices)]))],
        config=redacted(config),
        mode=mode,
        settings=wandb.Settings(console="off", x_disable_meta=True, disable_git=True, disable_code=True),
    )
    logger._wandb_init.pop("anonymous", None)  # which Lightning sets, and of which W&B warns
    return logger


def _choice_tags(choices: Mapping[str, str]) -> list[str]:
    """Return tags such as `neck=jpu`; not of what is of no interest to a comparison, nor of terms of a loss."""
    return [f"{group.split('/')[-1]}={name}" for group, name in choices.items() if not _UNTAGGED.match(group)]


def new_id() -> str:
    """Return the id of a new run: in a sweep of W&B the one that its agent gave, which W&B takes in any case."""
    return os.environ.get("WANDB_RUN_ID", "") * ("WANDB_SWEEP_ID" in os.environ) or secrets.token_hex(4)


def logged_in() -> bool:
    """Tell whether credentials of W&B are in the environment or in the user's netrc file; asks no server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    files = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    try:
        return any(file.is_file() and netrc.netrc(file).authenticators(host) for file in files)
    except netrc.NetrcParseError:
        return False


def _answers() -> bool:
    """Tell whether W&B's server can be reached, and say it if not: its client would try for minutes."""
    address = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    failure = check_server(address).failure()
    if failure is not None:
        print(f"{address} cannot be reached ({failure}): the W&B run is kept offline", file=sys.stderr, flush=True)
    return failure is None


class MetricsFile(CSVLogger):
    """Metrics as a CSV file in `folder`, to which a run that goes on from a checkpoint adds its own."""

    def __init__(self, *, folder: str) -> None:
        super().__init__(save_dir=folder, name="")

    @property
    def version(self) -> None:  # type: ignore[override]
        """None: a run's folder holds one file, and the progress bar shows no number of it."""
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
    """Make `logger` forget what was logged at `step` or later; W&B keeps it."""
    if isinstance(logger, MetricsFile):
        logger.experiment.rewind(step)
    elif isinstance(logger, TensorBoardLogger):
        logger._kwargs["purge_step"] = step  # TensorBoard then hides the events of earlier files from there on
        Path(logger.log_dir, logger.NAME_HPARAMS_FILE).unlink(missing_ok=True)  # else half of one would stay for ever


@contextmanager
def closing_wandb(run_dir: str) -> Iterator[None]:
    """Close the process's W&B run at the end, as failed where an exception passes through.

    Artifacts that wait for an upload stand in the run's folder, unless WANDB_DATA_DIR says where.
    """
    given = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = given or str(Path(run_dir, "wandb"))
    try:
        yield
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    else:
        wandb.finish()
    finally:
        if given is None:
            os.environ.pop("WANDB_DATA_DIR", None)


@rank_zero_only
def how_to_view() -> str | None:
    """Say where the process's W&B run is and how to look at it; None without one."""
    run = wandb.run
    if run is None or run.disabled:
        return None
    if run.offline:
        folder = os.path.relpath(Path(run.dir).parent)
        return f"{folder} (offline; upload and view it with: wandb sync {folder})"
    return str(run.url)
