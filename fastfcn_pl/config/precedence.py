"""Precedence of an option chosen on the command line over the keys that a study sets for another option.

A study's body comes after the options that it builds on, so Hydra alone lets `model.backbone.name` of a study win over
`model/backbone=convnext_tiny`. Here the chosen option decides which part it is (`_target_`, `name`) and every value in
which it differs from the study's own option. The study's other keys hold if the part has them: `neck.width: 32` with
`model/neck=fpn`. A part of another class or name keeps a study's numbers and switches, but not its words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault, ResultDefault
from omegaconf import DictConfig, open_dict

Content = dict[Any, Any]
TARGET, NAME = "_target_", "name"
_OF_HYDRA = (TARGET, "_partial_", "_args_", "_recursive_", "_convert_")
ABSENT = object()
_LONGEST = 40  # value in a note


@dataclass(frozen=True)
class Entry:
    """A file of the defaults list: the nodes of the tree above it, and what it sets, from the root of the config."""

    default: ResultDefault
    above: tuple[InputDefault, ...]
    content: Content

    @property
    def groups(self) -> list[str]:
        """The config groups that it belongs to, outermost first."""
        return [node.get_override_key() for node in self.above if isinstance(node, GroupDefault)]

    @property
    def group(self) -> str | None:
        return self.groups[-1] if self.groups else None


@dataclass
class Note:
    """Keys of a study that a chosen option replaced, and those that still hold, by the file that sets them."""

    choice: str
    replaced: dict[str, list[str]] = field(default_factory=dict)
    kept: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        said = [
            f"{what} {name}'s {', '.join(keys)}"
            for what, files in (("replaces", self.replaced), ("keeps", self.kept))
            for name, keys in files.items()
        ]
        return f"{self.choice} {' and '.join(said)}"


def studies(entries: Sequence[Entry], group: str) -> list[Entry]:
    """Return the files after the options of `group` that configure the whole job, or are what chose the group."""
    own = [i for i, entry in enumerate(entries) if group in entry.groups]
    if own:
        parents = entries[own[0]].above
        depth = next(i for i, n in enumerate(parents) if isinstance(n, GroupDefault) and n.get_override_key() == group)
        ancestors = {id(node) for node in parents[:depth]}
    else:  # an option that was deleted, or is null
        ancestors = {id(node) for entry in entries for node in entry.above if isinstance(node, ConfigDefault)}
    after = entries[own[-1] + 1 :] if own else entries
    return [e for e in after if not e.default.package or (e.default.is_self and id(e.above[-2]) in ancestors)]


class Settling:
    """The study's keys against those of one chosen option."""

    def __init__(
        self,
        cfg: DictConfig,
        now: list[Entry],
        study: list[Entry],
        usual: list[Entry],
        group: str,
        others: set[str],
        note: Note,
    ) -> None:
        self.cfg, self.note, self.study = cfg, note, study
        own, of_study = (
            [e for e in entries if group in e.groups and not others & set(e.groups[e.groups.index(group) :])]
            for entries in (now, usual)
        )
        self.option, self.default = merged(own), merged(of_study)
        self.base = merged(e for e in own if e.group == group and not (e.default.is_self and _is_root(e, group)))
        self.keys = merged(study)
        self.without = merged(entry for entry in now if entry not in study)

    def run(self) -> None:
        self._node((), self.keys, self.option, self.default, same=True, sizes=False)

    def _node(self, path: tuple[Any, ...], keys: Content, o: Content, d: Content, same: bool, sizes: bool) -> None:
        """Settle the `keys` of one node, of which the chosen option states `o` and the study's own option `d`."""
        if TARGET in o:
            of_study = {**d, **keys}
            same = of_study.get(TARGET) == o[TARGET] and name_of(o) in (None, of_study.get(NAME))
            sizes = True
        elif path and sizes:  # a mapping inside of a part
            sizes = False
        for key, value in keys.items():
            here, chosen, usual = (*path, key), o.get(key, ABSENT), d.get(key, ABSENT)
            if chosen is ABSENT and isinstance(value, dict) and isinstance(usual, dict):
                self._node(here, value, {}, usual, same, sizes)
            elif chosen is ABSENT:
                if usual is not ABSENT or (TARGET in o and not same and path):
                    self._replace(here, value)
            elif isinstance(value, dict) and isinstance(chosen, dict):
                self._node(here, value, chosen, usual if isinstance(usual, dict) else {}, same, sizes)
            elif value == self._stated(here):
                continue
            elif self._wins(here, o, chosen, usual, same, sizes, value):
                self._replace(here, value)
            else:
                self._say(self.note.kept, here, value)

    def _wins(
        self, path: tuple[Any, ...], o: Content, chosen: Any, usual: Any, same: bool, sizes: bool, value: Any
    ) -> bool:
        """Tell whether the option's value at `path` wins over the study's."""
        if path[-1] in _OF_HYDRA or (path[-1] == NAME and name_of(o) is not None) or usual is ABSENT:
            return True
        if (of_base := select(self.base, path)) is not ABSENT and of_base != chosen:  # what it was made for
            return True
        return chosen != usual if same else not (sizes and _is_size(value))

    def _stated(self, path: tuple[Any, ...]) -> Any:
        return select(self.without, path)

    def _replace(self, path: tuple[Any, ...], value: Any) -> None:
        """Set what stands at `path` without the study; remove what does not."""
        self._say(self.note.replaced, path, value)
        node: Any = self.cfg
        nodes = [node := node._get_node(key) for key in path[:-1]]
        stated = self._stated(path)
        for depth in range(len(path) - 1, -1, -1):
            parent = nodes[depth - 1] if depth else self.cfg
            with open_dict(parent):
                if stated is not ABSENT:
                    parent[path[depth]] = stated
                    return
                del parent[path[depth]]
            if len(parent) or self._stated(path[:depth]) is not ABSENT:
                return

    def _say(self, said: dict[str, list[str]], path: tuple[Any, ...], value: Any) -> None:
        source = next(e for e in reversed(self.study) if select(e.content, path) is not ABSENT)
        said.setdefault(str(source.default.config_path), []).append(f"{'.'.join(map(str, path))}={_shown(value)}")


def _is_root(entry: Entry, group: str) -> bool:
    """Tell whether an entry is the very file that was chosen, not one that it builds on."""
    holder = entry.above[-2]
    return isinstance(holder, GroupDefault) and holder.get_override_key() == group


def name_of(node: Content) -> str | None:
    """Return the name by which a part of one class is told from others."""
    return node[NAME] if TARGET in node and isinstance(node.get(NAME), str) else None


def _is_size(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_size, value))
    return value is None or isinstance(value, (bool, int, float))


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def merged(entries: Iterable[Entry]) -> Content:
    """Return what `entries` set together, later ones over earlier ones."""
    total: Content = {}
    for entry in entries:
        _merge(total, entry.content)
    return total


def _merge(into: Content, content: Content) -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value)
        else:
            into[key] = value


def select(content: Any, path: Sequence[Any]) -> Any:
    for key in path:
        if not isinstance(content, dict) or key not in content:
            return ABSENT
        content = content[key]
    return content
