"""Files and folder names that Hydra makes for a job or a sweep, without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.core_plugins import basic_sweeper
from hydra.core import utils
from omegaconf import OmegaConf

from fastfcn_pl.redaction import without_secrets

_dirname = config_loader_impl.get_overrides_dirname


class _Saving(OmegaConf):
    """OmegaConf as Hydra's sweeper uses it."""

    @staticmethod
    def save(config: Any, f: Any, resolve: bool = False) -> None:
        Path(f).write_text(as_yaml(config), encoding="utf-8")


def register() -> None:
    """Take the place of the functions by which Hydra writes; it has no setting for it."""
    utils._save_config = _save
    basic_sweeper.OmegaConf = _Saving  # type: ignore[misc]
    config_loader_impl.get_overrides_dirname = _without_secret_overrides


def as_yaml(cfg: Any) -> str:
    """Return a configuration as YAML, its interpolations as they stand, without secrets."""
    content = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True) if OmegaConf.is_config(cfg) else cfg
    return OmegaConf.to_yaml(OmegaConf.create(without_secrets(content)))


def _save(cfg: Any, filename: str, output_dir: Path) -> None:
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / filename).write_text(as_yaml(cfg), encoding="utf-8")


def _without_secret_overrides(overrides: list[Any], *args: Any, **kwargs: Any) -> str:
    """Return the name of a job's folder by its overrides; secrets, and what may be one when resolved, are left out."""
    return _dirname([override for override in overrides if _is_open(override.input_line or "")], *args, **kwargs)


def _is_open(override: str) -> bool:
    return "$" not in override and without_secrets(override) == override
