"""The rule for a checkpoint's configuration: it is data, and may name only parts that we or the user name.

1. A part may name the `_target_`s of the options in `conf/` for that part: `model` those below `conf/model`.
2. It may name what the user names: in the same part of this job's configuration, in the options of a folder given by
   `-cd` or `hydra.searchpath`, and by `trust`: own classes of the packages that it lists, or everything.
3. Interpolations are never resolved, since `${oc.env:TOKEN}` would bring secrets in, unless this job has the same one
   at the same key.
4. A network is not fetched from a hub, and a run that is resumed does not write outside of its folder or to an
   address, because a file says so.

Everything else is refused in one line, before anything is imported. Parts that a command does not build are not
checked.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config.plain_data import YAML_LOADER
from fastfcn_pl.config.schema import CONF_DIR, STUDIES_DIR
from fastfcn_pl.config.validation import import_target
from fastfcn_pl.core.types import UserError

_TARGET = "_target_"
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_SCHEME = re.compile(r"[\w+-]+:")
_WRITING = ("trainer", "callbacks", "logger")
"""The parts of a run that write files or send data."""


@dataclass(frozen=True)
class Trust:
    """Targets that the user allows in addition to `conf/`; `own` is the unresolved configuration of this job."""

    packages: tuple[str, ...] = ()
    everything: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, words: Any, cfg: DictConfig | None = None) -> Trust:
        """Return what `trust=words` allows in the job `cfg`; raises UserError unless they are names or a truth value.

        A `Trust` is returned as it is.
        """
        if isinstance(words, Trust):
            return words
        own: Any = {} if cfg is None else OmegaConf.to_container(cfg, resolve=False)
        if words is None or isinstance(words, bool):
            return cls(everything=bool(words), own=own)
        names = tuple(words) if isinstance(words, Sequence) and not isinstance(words, str) else (words,)
        for name in names:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise UserError(f"trust={name}: give packages or modules by their names, such as [my_parts], or true")
        return cls(names, own=own)

    def check(self, parts: Mapping[str, Any], path: str | Path, folder: str | None = None) -> None:
        """Raise UserError for the first value in `parts` of the checkpoint at `path` that the rule does not allow.

        `folder` is the folder of a resumed run.
        """
        imports = []
        for keys, value, own in _values(parts, self.own):
            if keys[-1] == _TARGET and self._is_of_a_package(keys, value):
                imports.append((keys, value))
            elif not (isinstance(own, str) and value == own) and (reason := self._reason(keys, value, folder)):
                raise UserError(f"checkpoint={path}: {'.'.join(keys)}={_shown(value)} {reason}")
        for keys, value in imports:
            target = import_target(".".join(keys[:-1]), value)
            home = str(getattr(target, "__module__", None) or type(target).__name__)
            if not _is_inside(home, self.packages):
                raise UserError(
                    f"checkpoint={path}: {'.'.join(keys)}={value} is of {home}, which trust={list(self.packages)} does "
                    "not name"
                )

    def _reason(self, keys: tuple[str, ...], value: Any, folder: str | None) -> str | None:
        """Return why a value is refused, with the remedy; None if it is allowed."""
        part, key = keys[0], keys[-1]
        if key == _TARGET:
            return None if self._may_name(part, value) else _unknown_target(value)
        if not isinstance(value, str):
            return None
        if "${" in value:
            return f"is an interpolation, which is not resolved for a file: set {'.'.join(keys)}=... if it is needed"
        if self.everything:
            return None
        if part == "model" and key == "name" and _SCHEME.match(value):
            return "would fetch a network because a file says so: trust=true allows it"
        if folder is not None and part in _WRITING and _leads_out_of(folder, value):
            return f"leads out of the run's folder {folder}: set {'.'.join(keys)}=... to use it, or trust=true"
        return None

    def _is_of_a_package(self, keys: tuple[str, ...], target: Any) -> bool:
        """Tell whether only `trust` allows a target, so that the module that defines it must be checked."""
        known = self.everything or not isinstance(target, str) or not _is_inside(target, self.packages)
        return not known and not self._may_name(keys[0], target)

    def _may_name(self, part: str, target: Any) -> bool:
        if not isinstance(target, str):
            return False
        return (
            self.everything
            or target in self.packages
            or target in _options().get(part, ())
            or target in _targets(self.own.get(part))
            or target in _of_user()
        )


def _values(node: Any, own: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield keys and value of each leaf of plain containers, and the value of `own` there; `_target_` is a leaf."""
    if isinstance(node, (dict, list)) and not (keys and keys[-1] == _TARGET):
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _values(item, _at(own, key), (*keys, str(key)))
    elif keys:
        yield keys, node, own


def _at(node: Any, key: Any) -> Any:
    if isinstance(node, Mapping):
        return node.get(key)
    return node[key] if isinstance(node, list) and isinstance(key, int) and key < len(node) else None


def _targets(node: Any) -> set[str]:
    return {value for keys, value, _ in _values(node, None) if keys[-1] == _TARGET and isinstance(value, str)}


@cache
def _options() -> Mapping[str, set[str]]:
    """Return the targets of our own options and studies, by part."""
    found: dict[str, set[str]] = defaultdict(set)
    for folder in (CONF_DIR, STUDIES_DIR):
        for file, content in _yaml_files(folder):
            if file.parent == folder:
                for part, node in content.items():
                    found[part] |= _targets({part: node})
            else:
                found[file.relative_to(folder).parts[0]] |= _targets(content)
    return found


def _of_user() -> set[str]:
    """Return the targets in the option folders that the user gave to this job."""
    if not HydraConfig.initialized():
        return set()
    runtime, found = HydraConfig.get().runtime, set()
    for source in runtime.config_sources:
        folder = Path(runtime.cwd, source.path)
        if source.schema == "pkg" and source.provider.startswith("hydra.searchpath"):
            spec = find_spec(source.path.replace("/", "."))
            folder = Path(next(iter(spec.submodule_search_locations or ())) if spec else "")
        elif source.schema != "file" or folder.resolve() == CONF_DIR.resolve():
            continue
        found |= set().union(*(_targets(content) for _, content in _yaml_files(folder)))
    return found


def _yaml_files(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the YAML files that Hydra composes from `folder`, without hidden folders such as a run's `.hydra`."""
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(root, name) for name in files if name.endswith(".yaml") and not name.startswith(".")):
            try:
                content = yaml.load(file.read_text(encoding="utf-8"), Loader=YAML_LOADER)
            except (yaml.YAMLError, UnicodeDecodeError):  # no option: Hydra could not compose it either
                continue
            if isinstance(content, dict):
                yield file, content


def _is_inside(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _leads_out_of(folder: str, value: str) -> bool:
    path = Path(value)
    if "://" in value or value.startswith("~") or ".." in path.parts:
        return True
    return path.is_absolute() and not path.is_relative_to(Path(folder).absolute())


def _unknown_target(target: Any) -> str:
    package = target.partition(".")[0] if isinstance(target, str) and _NAME.fullmatch(target) else "<package>"
    return (
        "is none of fastfcn_pl's options for it, and was not run: if you trust it, say so with "
        f"trust=[{package}], or give the folder of your options with -cd"
    )


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:100]}..."
