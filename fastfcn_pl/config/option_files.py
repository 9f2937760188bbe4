"""The YAML files that a command line chooses, and the config groups that it can choose from, for the help page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.default_element import DefaultsTreeNode, GroupDefault, InputDefault
from hydra.core.override_parser.overrides_parser import OverridesParser

from fastfcn_pl.config.composition import ConfigLoader, defaults_tree, merge_order
from fastfcn_pl.config.precedence import Entry
from fastfcn_pl.config.schema import CONF_DIR
from fastfcn_pl.config.yaml_comments import CommentedKey, commented_keys, header

_BUILDING = ("_target_", "_partial_")


@dataclass(frozen=True)
class Group:
    """A config group: the chosen option, None if there is none, all options, and the keys of the chosen one."""

    chosen: str | None
    options: list[str]
    keys: dict[str, CommentedKey]


class OptionFiles:
    """Files of the primary config `config_name` with `overrides`; `config_dir` is the user's folder of options."""

    def __init__(self, config_name: str, config_dir: str | None, overrides: list[str]) -> None:
        search_path = create_config_search_path(str(CONF_DIR))
        if config_dir is not None:
            folder = f"file://{os.path.abspath(config_dir)}"
            search_path.prepend("command-line", folder, SearchPathQuery("schema", None))
        loader = ConfigLoader(search_path)
        self._repository, parsed = loader.repository, OverridesParser.create().parse_overrides(overrides)
        self._tree = defaults_tree(loader.repository, config_name, parsed)
        self._entries = merge_order(loader.repository, self._tree)

    def own_keys(self) -> dict[str, CommentedKey]:
        """Return the keys that the primary config and the files that it shares with others set, by dotted path."""
        return self._keys(entry for entry in self._entries if not entry.groups)

    def groups(self) -> dict[str, Group]:
        """Return the groups by name, such as `model/neck`; a part of another package counts to the group around it."""
        nodes = [node for node in _nodes(self._tree) if isinstance(node, GroupDefault) and not node.is_deleted()]
        chosen = {node.get_override_key(): node.get_name() for node in nodes}
        names = [name for name in chosen if "@" not in name and not name.startswith("hydra")]
        return {
            name: Group(
                chosen[name] if isinstance(chosen[name], str) and chosen[name] != "???" else None,  # or a list
                sorted(self._repository.get_group_options(name)),
                self._keys(e for e in self._entries if [g for g in e.groups if "@" not in g][-1:] == [name]),
            )
            for name in names
        }

    def header(self, config_path: str) -> str:
        """Return the comment at the top of a file, such as `model/fastfcn`."""
        return header(self._read(config_path))

    def _keys(self, entries: Iterable[Entry]) -> dict[str, CommentedKey]:
        keys: dict[str, CommentedKey] = {}
        for entry in entries:
            assert entry.default.config_path is not None
            for name, key in commented_keys(self._read(entry.default.config_path)).items():
                path = name.split(".")
                if path[0] in ("defaults", "hydra") or path[-1] in _BUILDING:
                    continue
                full = f"{entry.default.package}.{name}" if entry.default.package else name
                keys[full] = CommentedKey(key.value, key.meaning or (keys[full].meaning if full in keys else ""))
        return keys

    def _read(self, config_path: str) -> str:
        source = self._repository.load_config(config_path)
        if source is None or not source.path.startswith("file://"):  # a schema
            return ""
        return Path(source.path.removeprefix("file://"), f"{config_path}.yaml").read_text("utf-8")


def _nodes(tree: DefaultsTreeNode) -> Iterator[InputDefault]:
    """Yield all nodes of the tree, parents first."""
    yield tree.node
    for child in tree.children or []:
        if isinstance(child, DefaultsTreeNode):
            yield from _nodes(child)
        else:
            yield child
