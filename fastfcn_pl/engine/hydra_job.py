"""Overrides and choices of a Hydra job: of this process's, or of a finished one."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from fastfcn_pl.config import resolvers
from fastfcn_pl.config.plain_data import read_yaml


def overrides() -> list[str]:
    """Return the overrides of this job as written, without those of Hydra's own settings; empty outside of a job."""
    if not HydraConfig.initialized():
        return []
    return OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)  # type: ignore[return-value]


def override_key(override: str) -> str:
    """Return the key or the config group that a Hydra override sets."""
    return override.lstrip("+~").partition("=")[0]


def choices(folder: str | None = None) -> dict[str, str]:
    """Return the option chosen in each config group, such as `model/neck: jpu`; empty outside of a job.

    With `folder`, those of the job that began the run in that folder.
    """
    if folder is None:
        return dict(resolvers.choices())
    content = read_yaml(Path(folder, ".hydra", "hydra.yaml"))
    for key in ("hydra", "runtime", "choices"):
        content = content.get(key) if isinstance(content, dict) else None
    options = content.items() if isinstance(content, dict) else ()
    return {k: v for k, v in options if v is not None and "${" not in str(v) and not str(k).startswith("hydra/")}
