"""Composition of a configuration by Hydra, with our precedence and a record of the parts that were really composed."""

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

from fastfcn_pl.config.precedence import NAME, TARGET, Content, Entry, Note, Settling, merged, name_of, select, studies


class Repository(ConfigRepository):
    """Hydra's index of options, without those whose names begin with `_`: they are there to inherit from."""

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        names = super().get_group_options(group_name, results_filter)
        return [name for name in names if not name.startswith("_")]


class ConfigLoader(ConfigLoaderImpl):
    """Hydra's loader of configurations, with this module's precedence and names of what was really composed."""

    notes: ClassVar[tuple[str, ...]] = ()
    """Remarks of the latest composition on the study's keys."""
    shows: ClassVar[bool] = False
    """The configuration is printed, not run: the folder of the run is not made, but its name is known."""
    _asked: tuple[str | None, list[str]] = (None, [])

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
        self._asked = config_name, overrides
        cfg = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        name_composed_parts(cfg, self._entries)
        if self.shows:
            _name_folder(cfg)
        return cfg

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        cfg = super()._compose_config_from_defaults_list(defaults=defaults, repo=repo)
        config_name, texts = self._asked
        overrides = OverridesParser.create().parse_overrides(texts)
        self._entries = self._tree(repo, config_name, overrides)
        notes, options = [], {o.get_key_element().lstrip("+~"): o for o in overrides if _chooses_an_option(o, repo)}
        for group, chosen in options.items():
            study = studies(self._entries, group)
            own = merged(entry for entry in self._entries if group in entry.groups)
            tops = own.keys() or {group.partition("@")[0].split("/")[0]}
            if not tops & merged(study).keys():
                continue
            usual = self._without(chosen, overrides, repo)
            note = Note(str(chosen.input_line))
            Settling(cfg, self._entries, study, usual, group, options.keys() - {group}, note).run()
            if note.replaced or note.kept:
                notes.append(str(note))
        ConfigLoader.notes = tuple(notes)
        return cfg

    def _without(self, chosen: Override, overrides: list[Override], repo: IConfigRepository) -> list[Entry]:
        """Return the files that would be merged without a choice; none if the study chooses no option itself."""
        rest = [override for override in overrides if override is not chosen]
        for kept in (rest, [override for override in rest if not _chooses_an_option(override, repo)]):
            with suppress(ConfigCompositionException, OmegaConfBaseException):  # groups that only `chosen` has
                return self._tree(repo, self._asked[0], kept)
        return []

    def _tree(self, repo: IConfigRepository, config_name: str | None, overrides: list[Override]) -> list[Entry]:
        """Return the files of the defaults list in the order in which they are merged, Hydra's own left out."""
        tree = create_defaults_list(repo, config_name, overrides, prepend_hydra=True, skip_missing=True).defaults_tree
        entries = []
        for above, node, default in _leaves(tree, ()):
            if default.config_path is None or f"{default.config_path}/".startswith("hydra/"):
                continue
            loaded = repo.load_config(default.config_path)
            content = OmegaConf.to_container(loaded.config, resolve=False) if loaded is not None else {}
            for key in reversed(default.package.split(".") if default.package else []):
                content = {key: content}
            entries.append(Entry(default, (*above, node), content if isinstance(content, dict) else {}))
        return entries


def register(shows: bool) -> None:
    """Have Hydra compose by `ConfigLoader`, on the command line, in sweeps and by its compose API."""
    ConfigLoader.shows = shows
    hydra_internal.ConfigLoaderImpl = ConfigLoader  # type: ignore[misc]


def _name_folder(cfg: DictConfig) -> None:
    """Set what Hydra itself sets only when a job runs, so that a configuration that is shown can be resolved."""
    folder = str(cfg.hydra.run.dir)
    cfg.hydra.run.dir, cfg.hydra.runtime.output_dir = folder, os.path.abspath(folder)
    cfg.hydra.sweep.dir = str(cfg.hydra.sweep.dir)
    cfg.hydra.job.num, cfg.hydra.job.id = 0, "0"
    HydraConfig.instance().set_config(cfg)
    subdir = cfg.hydra.output_subdir
    with read_write(cfg.hydra):
        cfg.hydra.output_subdir = subdir


def _chooses_an_option(override: Override, repo: IConfigRepository) -> bool:
    if override.is_sweep_override() or override.is_hydra_override() or isinstance(override.value(), dict):
        return False
    return repo.group_exists(override.key_or_group)


def _leaves(
    tree: DefaultsTreeNode, above: tuple[InputDefault, ...]
) -> Iterator[tuple[tuple[InputDefault, ...], InputDefault, ResultDefault]]:
    above = (*above, tree.node)
    for child in tree.children or []:
        if isinstance(child, DefaultsTreeNode) and child.children:
            yield from _leaves(child, above)
            continue
        node = child.node if isinstance(child, DefaultsTreeNode) else child
        if not node.is_deleted() and not node.is_missing():
            default = _create_result_default(tree, node)
            if default is not None:
                yield above, node, default


def name_composed_parts(cfg: DictConfig, entries: Sequence[Entry]) -> None:
    """Correct Hydra's record of choices if keys have turned an option into another part.

    `model.backbone.name=test_resnet` makes `model/backbone: resnet50s` a `test_resnet`.
    """
    choices = cfg.hydra.runtime.choices
    job = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    composed: Content = OmegaConf.to_container(job, resolve=False)  # type: ignore[assignment]
    for group in [key for key in choices if not key.startswith("hydra/")]:
        option = merged(entry for entry in entries if entry.group == group)
        nodes = (node for entry in entries for node in entry.above if isinstance(node, GroupDefault))
        package = next((node.get_final_package() for node in nodes if node.get_override_key() == group), "")
        for path in (package.split("."), group.partition("@")[0].split("/")):
            stated, part = select(option, path), select(composed, path)
            if isinstance(stated, dict) and TARGET in stated:
                other = "none" if part is None else _other_name(stated, part)
                if other is not None:
                    choices[group] = other
                break


def _other_name(stated: Content, part: Any) -> str | None:
    """Return the name of a composed `part` that is not the one which its option states."""
    if not isinstance(part, dict):
        return None
    if name_of(stated) is not None and part.get(NAME, stated[NAME]) != stated[NAME]:
        return str(part[NAME])
    if TARGET in stated and part.get(TARGET, stated[TARGET]) != stated[TARGET]:
        return str(part[TARGET]).rsplit(".", 1)[-1]
    inner = (_other_name(value, part.get(key)) for key, value in stated.items() if isinstance(value, dict))
    return next((name for name in inner if name is not None), None)
