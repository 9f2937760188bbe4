"""Removal of secrets from the files and folder names that Hydra makes for a job or a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl
from hydra.core import utils
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from fastfcn_pl.core.redaction import without_secrets


class _RedactingOmegaConf(OmegaConf):
    """OmegaConf for Hydra's sweeper, saving without secrets."""

    @staticmethod
    def save(config: Any, f: Any, resolve: bool = False) -> None:
        Path(f).write_text(as_yaml(config), encoding="utf-8")


def as_yaml(cfg: Any) -> str:
    """Return a configuration as YAML, unresolved and without secrets."""
    content = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True) if OmegaConf.is_config(cfg) else cfg
    return OmegaConf.to_yaml(OmegaConf.create(without_secrets(content)))


def _save(cfg: Any, filename: str, output_dir: Path) -> None:
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / filename).write_text(as_yaml(cfg), encoding="utf-8")


def _redacted_dirname(overrides: list[Any], *args: Any, **kwargs: Any) -> str:
    """Return the folder name of a job from its overrides, without those that are or may resolve to a secret."""
    harmless = [override for override in overrides if _is_harmless(override.input_line or "")]
    return _overrides_dirname(harmless, *args, **kwargs)


def _is_harmless(override: str) -> bool:
    return "$" not in override and without_secrets(override) == override


def protect_sweep() -> None:
    """Make Hydra's sweeper write `multirun.yaml` without secrets.

    Hydra loads its plugins itself, so the class that it uses is not the one that an import returns.
    """
    sweeper = Plugins.instance().class_name_to_class.get("hydra._internal.core_plugins.basic_sweeper.BasicSweeper")
    assert sweeper is not None, "Hydra's BasicSweeper was renamed: find the class that writes multirun.yaml"
    sweeper.sweep.__globals__["OmegaConf"] = _RedactingOmegaConf  # type: ignore[attr-defined]


# Hydra has no setting for this. Processes that a launcher starts for jobs of a sweep import this module, too.
_overrides_dirname = config_loader_impl.get_overrides_dirname
config_loader_impl.get_overrides_dirname = _redacted_dirname
utils._save_config = _save
