"""Precedence of an option selected on the command line over the keys that a study sets for its own option.

Hydra merges a study's body after the options in its defaults list. Plain Hydra therefore lets `model.backbone.name` of
a study win over `model/backbone=convnext_tiny` on the command line. With this module:

- The selected option decides which part is built (`_target_`, `name`).
- The selected option also decides every value in which it differs from the study's own option.
- Other keys of the study stay if the part has them, such as `neck.width: 32` with `model/neck=fpn`.
- If the part has another class or name, the study's numbers and booleans stay, but its strings do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault, ResultDefault
from omegaconf import DictConfig, open_dict

HYDRA_KEYS = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
"""Keys that are read by Hydra, not by the target."""
Content = dict[Any, Any]
TARGET, NAME = "_target_", "name"
ABSENT = object()
_MAX_VALUE_LENGTH = 40
"""Characters of a value in a note."""


@dataclass(frozen=True)
class Entry:
    """A file of the defaults list: its ancestors in the defaults tree, and its content from the root of the config."""

    default: ResultDefault
    ancestors: tuple[InputDefault, ...]
    content: Content

    @property
    def groups(self) -> list[str]:
        """Config groups that the file belongs to, outermost first."""
        return [node.get_override_key() for node in self.ancestors if isinstance(node, GroupDefault)]

    @property
    def group(self) -> str | None:
        return self.groups[-1] if self.groups else None


@dataclass
class StudyKeys:
    """Keys of a study that a selected option replaced or kept, by the file that sets them. Prints as a note."""

    selection: str
    replaced: dict[str, list[str]] = field(default_factory=dict)
    kept: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        effects = [
            f"{verb} {name}'s {', '.join(keys)}"
            for verb, files in (("replaces", self.replaced), ("keeps", self.kept))
            for name, keys in files.items()
        ]
        return f"{self.selection} {' and '.join(effects)}"


def study_entries(entries: Sequence[Entry], group: str) -> list[Entry]:
    """Return the files merged after the options of `group` that configure the whole job or that select the group."""
    indices = [i for i, entry in enumerate(entries) if group in entry.groups]
    if indices:
        nodes = entries[indices[0]].ancestors
        depth = next(i for i, n in enumerate(nodes) if isinstance(n, GroupDefault) and n.get_override_key() == group)
        parents = {id(node) for node in nodes[:depth]}
    else:  # the option was deleted, or is null
        parents = {id(node) for entry in entries for node in entry.ancestors if isinstance(node, ConfigDefault)}
    later = entries[indices[-1] + 1 :] if indices else entries
    return [e for e in later if not e.default.package or (e.default.is_self and id(e.ancestors[-2]) in parents)]


class OptionPrecedence:
    """Precedence of one selected option over the keys of a study."""

    def __init__(
        self,
        cfg: DictConfig,
        entries: list[Entry],
        study: list[Entry],
        default_entries: list[Entry],
        group: str,
        other_groups: set[str],
        study_keys: StudyKeys,
    ) -> None:
        """Take the files of the composition, those of the study, and those of a composition without the selection.

        Files of `other_groups`, whose options are selected as well, are left to their own instances.
        """
        self.cfg, self.study_keys, self.study = cfg, study_keys, study
        option_entries, default_option_entries = (
            [e for e in files if group in e.groups and not other_groups & set(e.groups[e.groups.index(group) :])]
            for files in (entries, default_entries)
        )
        self.option, self.default = merge(option_entries), merge(default_option_entries)
        self.base = merge(
            e for e in option_entries if e.group == group and not (e.default.is_self and _is_selected_file(e, group))
        )
        self.without_study = merge(entry for entry in entries if entry not in study)

    def apply(self) -> None:
        """Replace the study's keys in `cfg` that the selected option decides."""
        self._apply_node((), merge(self.study), self.option, self.default, same_part=True, keep_numbers=False)

    def _apply_node(
        self,
        path: tuple[Any, ...],
        keys: Content,
        option: Content,
        default: Content,
        same_part: bool,
        keep_numbers: bool,
    ) -> None:
        """Apply the precedence to the study's `keys` of one node.

        `option` and `default` are the node in the selected option and in the study's own option.
        """
        if TARGET in option:
            study_part = {**default, **keys}
            same_part = study_part.get(TARGET) == option[TARGET]
            same_part = same_part and part_name(option) in (None, study_part.get(NAME))
            keep_numbers = True
        elif path and keep_numbers:  # a mapping inside a part
            keep_numbers = False
        for key, value in keys.items():
            key_path, option_value, default_value = (*path, key), option.get(key, ABSENT), default.get(key, ABSENT)
            if option_value is ABSENT and isinstance(value, dict) and isinstance(default_value, dict):
                self._apply_node(key_path, value, {}, default_value, same_part, keep_numbers)
            elif option_value is ABSENT:
                if default_value is not ABSENT or (TARGET in option and not same_part and path):
                    self._replace(key_path, value)
            elif isinstance(value, dict) and isinstance(option_value, dict):
                nested_default = default_value if isinstance(default_value, dict) else {}
                self._apply_node(key_path, value, option_value, nested_default, same_part, keep_numbers)
            elif value == select(self.without_study, key_path):
                continue
            elif self._is_decisive(key_path, option, option_value, default_value) or (
                option_value != default_value if same_part else not (keep_numbers and _is_number(value))
            ):
                self._replace(key_path, value)
            else:
                self._record(self.study_keys.kept, key_path, value)

    def _is_decisive(self, path: tuple[Any, ...], option: Content, option_value: Any, default_value: Any) -> bool:
        """Tell whether the option's value defines the part, or is the purpose of the option.

        The latter is a value in which the option differs from the one that it inherits: the width of `jpu_128`.
        """
        if path[-1] in HYDRA_KEYS or (path[-1] == NAME and part_name(option) is not None) or default_value is ABSENT:
            return True
        base_value = select(self.base, path)
        return base_value is not ABSENT and bool(base_value != option_value)

    def _replace(self, path: tuple[Any, ...], value: Any) -> None:
        """Set the value that `path` has without the study, or remove the key and mappings that become empty."""
        self._record(self.study_keys.replaced, path, value)
        node: Any = self.cfg
        nodes = [node := node._get_node(key) for key in path[:-1]]
        replacement = select(self.without_study, path)
        for depth in range(len(path) - 1, -1, -1):
            parent = nodes[depth - 1] if depth else self.cfg
            with open_dict(parent):
                if replacement is not ABSENT:
                    parent[path[depth]] = replacement
                    return
                del parent[path[depth]]
            if len(parent) or select(self.without_study, path[:depth]) is not ABSENT:
                return

    def _record(self, keys: dict[str, list[str]], path: tuple[Any, ...], value: Any) -> None:
        source = next(e for e in reversed(self.study) if select(e.content, path) is not ABSENT)
        assignment = f"{'.'.join(map(str, path))}={_format(value)}"
        keys.setdefault(str(source.default.config_path), []).append(assignment)


def _is_selected_file(entry: Entry, group: str) -> bool:
    """Tell whether an entry is the selected file itself, not one that it inherits."""
    parent = entry.ancestors[-2]
    return isinstance(parent, GroupDefault) and parent.get_override_key() == group


def part_name(node: Content) -> str | None:
    """Return the `name` of a part, which distinguishes parts of one class, such as timm backbones."""
    return node[NAME] if TARGET in node and isinstance(node.get(NAME), str) else None


def _is_number(value: Any) -> bool:
    """Tell whether a value is a number, a boolean, null, or a list of these."""
    if isinstance(value, list):
        return all(map(_is_number, value))
    return value is None or isinstance(value, (bool, int, float))


def _format(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[:_MAX_VALUE_LENGTH]}..."


def merge(entries: Iterable[Entry]) -> Content:
    """Return the merged content of `entries`; later ones win."""
    merged: Content = {}
    for entry in entries:
        _update(merged, entry.content)
    return merged


def _update(target: Content, content: Content) -> None:
    """Merge `content` into `target`, recursively and in place."""
    for key, value in content.items():
        if isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _update(target[key], value)
        else:
            target[key] = value


def select(content: Any, path: Sequence[Any]) -> Any:
    """Return the value at `path` in nested mappings, or ABSENT."""
    for key in path:
        if not isinstance(content, dict) or key not in content:
            return ABSENT
        content = content[key]
    return content
