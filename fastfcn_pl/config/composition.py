"""Hydra's composition, with the precedence of `precedence` and a record of the parts that were actually composed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import hydra._internal.hydra as hydra_internal
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import _create_result_default, create_defaults_list
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import DefaultsTreeNode, GroupDefault, InputDefault, ResultDefault
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from fastfcn_pl.config.precedence import (
    NAME,
    TARGET,
    Content,
    Entry,
    OptionPrecedence,
    StudyKeys,
    merge,
    part_name,
    select,
    study_entries,
)
from fastfcn_pl.core.types import UserError

_SINGLE_PARTS = ("model", "data", "optimizer", "scheduler", "trainer", "protocol", "loss")
"""Groups of which a job has one option. Of others, such as `logger`, it may have several."""


class Repository(ConfigRepository):
    """Hydra's index of options, without those whose names begin with `_`: they are there to inherit from."""

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        names = super().get_group_options(group_name, results_filter)
        return [name for name in names if not name.startswith("_")]


class ConfigLoader(ConfigLoaderImpl):
    """Hydra's config loader, with our precedence and the names of the parts that were actually composed."""

    notes: ClassVar[tuple[str, ...]] = ()
    """Notes about the study's keys from the latest composition."""
    print_only: ClassVar[bool] = False
    """The configuration is printed instead of run: the run's folder gets a name but is not made."""
    _request: tuple[str | None, list[Override]] = (None, [])
    """Name of the primary config, and the overrides."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = Repository(config_search_path)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        self._request = config_name, OverridesParser.create().parse_overrides(overrides)
        _check_lists(self._request[1], self.repository)
        cfg = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        name_composed_parts(cfg, self._entries)
        if self.print_only:
            _name_folder(cfg)
        return cfg

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        cfg = super()._compose_config_from_defaults_list(defaults=defaults, repo=repo)
        config_name, overrides = self._request
        self._entries = merge_order(repo, defaults_tree(repo, config_name, overrides))
        notes, options = [], {o.get_key_element().lstrip("+~"): o for o in overrides if _selects_option(o, repo)}
        for group, selection in options.items():
            study = study_entries(self._entries, group)
            option = merge(entry for entry in self._entries if group in entry.groups)
            top_keys = option.keys() or {group.partition("@")[0].split("/")[0]}
            if not top_keys & merge(study).keys():
                continue
            default_entries = self._entries_without(selection, overrides, repo)
            keys = StudyKeys(str(selection.input_line))
            other_groups = options.keys() - {group}
            OptionPrecedence(cfg, self._entries, study, default_entries, group, other_groups, keys).apply()
            if keys.replaced or keys.kept:
                notes.append(str(keys))
        ConfigLoader.notes = tuple(notes)
        return cfg

    def _entries_without(self, selection: Override, overrides: list[Override], repo: IConfigRepository) -> list[Entry]:
        """Return the files merged without `selection`, so with the study's own option; none if it has no own option."""
        rest = [override for override in overrides if override is not selection]
        for candidates in (rest, [override for override in rest if not _selects_option(override, repo)]):
            with suppress(ConfigCompositionException, OmegaConfBaseException):  # others may need groups of `selection`
                return merge_order(repo, defaults_tree(repo, self._request[0], candidates))
        return []


def register(print_only: bool) -> None:
    """Make Hydra compose with `ConfigLoader` on the command line, in sweeps and in its compose API."""
    ConfigLoader.print_only = print_only
    hydra_internal.ConfigLoaderImpl = ConfigLoader  # type: ignore[misc]


def _name_folder(cfg: DictConfig) -> None:
    """Set the fields that Hydra sets when a job starts, so that a printed configuration can be resolved."""
    folder = str(cfg.hydra.run.dir)
    cfg.hydra.run.dir, cfg.hydra.runtime.output_dir = folder, os.path.abspath(folder)
    cfg.hydra.sweep.dir = str(cfg.hydra.sweep.dir)
    cfg.hydra.job.num, cfg.hydra.job.id = 0, "0"
    HydraConfig.instance().set_config(cfg)
    subdir = cfg.hydra.output_subdir
    with read_write(cfg.hydra):
        cfg.hydra.output_subdir = subdir


def _selects_option(override: Override, repo: IConfigRepository) -> bool:
    """Tell whether an override selects one option of a config group, such as `model/neck=jpu`."""
    if override.is_sweep_override() or override.is_hydra_override() or isinstance(override.value(), (dict, list)):
        return False
    return repo.group_exists(override.key_or_group)


def _check_lists(overrides: Sequence[Override], repo: IConfigRepository) -> None:
    """Raise UserError for an override such as `model/neck=[jpu,fpn]`: a job has one option of this group."""
    for override in overrides:
        group = override.key_or_group
        if isinstance(override.value(), list) and group.split("/")[0] in _SINGLE_PARTS and repo.group_exists(group):
            raise UserError(f"{override.input_line}: select one option; with -m, {group}=a,b runs one after the other")


def defaults_tree(repo: IConfigRepository, config_name: str | None, overrides: list[Override]) -> DefaultsTreeNode:
    """Return the tree of files that a command line chooses."""
    return create_defaults_list(repo, config_name, overrides, prepend_hydra=True, skip_missing=True).defaults_tree


def merge_order(repo: IConfigRepository, tree: DefaultsTreeNode) -> list[Entry]:
    """Return the files of the defaults list in merge order, without Hydra's own."""
    entries = []
    for ancestors, node, default in _leaves(tree, ()):
        if default.config_path is None or f"{default.config_path}/".startswith("hydra/"):
            continue
        loaded = repo.load_config(default.config_path)
        content = OmegaConf.to_container(loaded.config, resolve=False) if loaded is not None else {}
        for key in reversed(default.package.split(".") if default.package else []):
            content = {key: content}
        entries.append(Entry(default, (*ancestors, node), content if isinstance(content, dict) else {}))
    return entries


def _leaves(
    tree: DefaultsTreeNode, ancestors: tuple[InputDefault, ...]
) -> Iterator[tuple[tuple[InputDefault, ...], InputDefault, ResultDefault]]:
    """Yield the ancestors, the node and the resulting default of each file in the tree."""
    ancestors = (*ancestors, tree.node)
    for child in tree.children or []:
        if isinstance(child, DefaultsTreeNode) and child.children:
            yield from _leaves(child, ancestors)
            continue
        node = child.node if isinstance(child, DefaultsTreeNode) else child
        if not node.is_deleted() and not node.is_missing():
            default = _create_result_default(tree, node)
            if default is not None:
                yield ancestors, node, default


def name_composed_parts(cfg: DictConfig, entries: Sequence[Entry]) -> None:
    """Correct Hydra's record of choices if a key has turned an option into another part.

    `model.backbone.name=test_resnet` changes the record `model/backbone: resnet50s` to `test_resnet`.
    """
    choices = cfg.hydra.runtime.choices
    job = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    composed: Content = OmegaConf.to_container(job, resolve=False)  # type: ignore[assignment]
    for group in [key for key in choices if not key.startswith("hydra/")]:
        option = merge(entry for entry in entries if entry.group == group)
        nodes = (node for entry in entries for node in entry.ancestors if isinstance(node, GroupDefault))
        package = next((node.get_final_package() for node in nodes if node.get_override_key() == group), "")
        for path in (package.split("."), group.partition("@")[0].split("/")):
            option_part, part = select(option, path), select(composed, path)
            if isinstance(option_part, dict) and TARGET in option_part:
                name = "none" if part is None else _changed_name(option_part, part)
                if name is not None:
                    choices[group] = name
                break


def _changed_name(option_part: Content, part: Any) -> str | None:
    """Return the name of the composed `part` if it is another part than its option defines, else None."""
    if not isinstance(part, dict):
        return None
    if part_name(option_part) is not None and part.get(NAME, option_part[NAME]) != option_part[NAME]:
        return str(part[NAME])
    if TARGET in option_part and part.get(TARGET, option_part[TARGET]) != option_part[TARGET]:
        return str(part[TARGET]).rsplit(".", 1)[-1]
    nested = (_changed_name(value, part.get(key)) for key, value in option_part.items() if isinstance(value, dict))
    return next((name for name in nested if name is not None), None)
