"""Weights & Biases: online when the user is logged in, offline otherwise, and closed whatever happens."""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from fastfcn_pl.contracts import UserError

_MODES = ("auto", "online", "offline")


def wandb_logger(
    config: dict[str, Any],
    *,
    save_dir: str,
    project: str,
    entity: str | None,
    name: str | None,
    group: str | None,
    job_type: str | None,
    tags: Sequence[str],
    mode: str,
) -> WandbLogger:
    """Build a logger whose run starts with `config`. `mode` auto is online where credentials of W&B are found.

    WANDB_MODE wins over auto. Raises UserError for another mode.
    """
    if mode not in _MODES:
        raise UserError(f"logger.wandb.mode={mode}: use {', '.join(_MODES)}, or logger=none")
    Path(save_dir).mkdir(parents=True, exist_ok=True)  # W&B falls back to a temporary folder where it is missing
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    os.environ.setdefault("WANDB_SILENT", "true")  # `how_to_view` says it in one line
    return WandbLogger(
        name=name,
        save_dir=save_dir,
        project=project,
        entity=entity,
        group=group,
        job_type=job_type,
        tags=list(tags),
        config=config,
        mode=mode,
        settings=wandb.Settings(console="off"),
    )


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


@contextmanager
def closing_wandb() -> Iterator[None]:
    """Close the process's W&B run at the end, as failed where an exception passes through."""
    try:
        yield
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    wandb.finish()


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
