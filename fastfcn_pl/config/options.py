"""Composition of our configurations by the names of options, inside or outside of a job.

It leaves Hydra's global state alone, so that a program with a Hydra application of its own can call it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import version
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict

from fastfcn_pl.config import schema
from fastfcn_pl.config.composition import ConfigLoader
from fastfcn_pl.core.types import UserError, suggest


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration of a command or study from the folders of the running job, else from ours.

    Raises UserError if there is no configuration `name`, and Hydra's errors for wrong overrides.
    """
    schema.define()
    setup_globals()
    of_job = _sources_of_job()
    with _undisturbed():
        try:
            loader = ConfigLoader(of_job or _own_search_path())
            cfg = loader.load_configuration(name, list(overrides), RunMode.RUN, from_shell=False)
        except MissingConfigException as error:
            if error.missing_cfg_file != name:
                raise
            raise UserError(f"{name}: no such command or study; {suggest(name, _names())}") from None
    with open_dict(cfg):
        if of_job is None and "run_dir" in cfg and OmegaConf.is_interpolation(cfg, "run_dir"):
            cfg.run_dir = str(cfg.hydra.run.dir)  # the folder that the command would make
        del cfg["hydra"]
    return cfg


def list_options(group: str) -> list[str]:
    """Return the names of a group's options; raises UserError for an unknown group.

    >>> import fastfcn_pl
    >>> fastfcn_pl.list_options("model/aux_head")
    ['fcn', 'none']
    >>> "fastfcn_encnet_r50" in fastfcn_pl.list_options("model")
    True
    """
    groups = {folder.relative_to(schema.CONF_DIR).as_posix() for folder in schema.CONF_DIR.rglob("[!_]*/")}
    if group not in groups:
        raise UserError(f"{group}: no such group of options; {suggest(group, groups)}")
    return _stems(schema.CONF_DIR / group)


def _names() -> list[str]:
    return _stems(schema.CONF_DIR) + _stems(schema.STUDIES_DIR)


def _stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("[!_]*.yaml"))


def _sources_of_job() -> ConfigSearchPath | None:
    """Return the folders of the running job, the user's among them; None outside of a job of ours."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    if not any(source.path == str(schema.CONF_DIR) for source in sources):
        return None
    search_path = ConfigSearchPathImpl()
    for source in sources:
        search_path.append(source.provider, f"{source.schema}://{source.path}")
    return search_path


def _own_search_path() -> ConfigSearchPath:
    search_path = create_config_search_path(str(schema.CONF_DIR))
    if all(element.path != str(schema.STUDIES_DIR) for element in search_path.get_path()):
        search_path.append("fastfcn_pl", str(schema.STUDIES_DIR), anchor=SearchPathQuery("main", None))
    return search_path


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Compose by the rules of Hydra 1.3, and restore the rules and the notes of the program's own configuration."""
    rules, notes = VersionBase.instance(), ConfigLoader.notes
    base = rules.version_base
    version.setbase("1.3")
    try:
        yield
    finally:
        rules.version_base, ConfigLoader.notes = base, notes
