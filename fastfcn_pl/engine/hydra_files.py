"""Files and folder names that Hydra makes for a job or a sweep, without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl
from hydra.core import utils
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from fastfcn_pl.core.redaction import without_secrets


class _Saving(OmegaConf):
    """OmegaConf as Hydra's sweeper uses it."""

    @staticmethod
    def save(config: Any, f: Any, resolve: bool = False) -> None:
        Path(f).write_text(as_yaml(config), encoding="utf-8")


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


def protect_sweep() -> None:
    """Have the sweep of this process write its `multirun.yaml` without secrets.

    Hydra loads its plugins by itself: the class that it uses is not the one that an import gives.
    """
    sweeper = Plugins.instance().class_name_to_class.get("hydra._internal.core_plugins.basic_sweeper.BasicSweeper")
    assert sweeper is not None, "Hydra has no sweeper of that name: where does it write multirun.yaml?"
    sweeper.sweep.__globals__["OmegaConf"] = _Saving  # type: ignore[attr-defined]


# Hydra has no setting for how it writes. Processes that a launcher starts for jobs of a sweep import this, too.
_dirname = config_loader_impl.get_overrides_dirname
config_loader_impl.get_overrides_dirname = _without_secret_overrides
utils._save_config = _save
