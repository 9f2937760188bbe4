"""Plain data of files that anybody may have written: containers, texts and numbers of a sensible size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from fastfcn_pl.core.types import UserError

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast if PyYAML was built with it."""
_MOST_VALUES, _DEEPEST, _LARGEST_FILE = 100_000, 50, 4 * 2**20
"""Far beyond any configuration of ours; the last in bytes."""


def plain_data(value: Any) -> Any:
    """Return a copy of `value` in new containers; raises UserError unless it is plain data of a sensible size."""
    left = _MOST_VALUES

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > _DEEPEST:
            raise UserError("its configuration is larger, or nested deeper, than any of ours")
        if isinstance(value, dict):
            if not all(type(key) in (str, int, float, bool) for key in value):
                raise UserError("a key of its configuration is neither text nor a number")
            return {key: copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [copy(item, depth + 1) for item in value]
        if value is not None and type(value) not in (str, int, float, bool):
            raise UserError(f"its configuration holds a {type(value).__name__}, which no option is")
        return value

    return copy(value, 0)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file in a run's folder as plain data, None if there is none; raises UserError."""
    return _read(path, parse_yaml) if path.is_file() else None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file as plain data; raises UserError if it cannot be read."""
    return _read(path, lambda text: plain_data(json.loads(text)))


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
        if len(text) > _LARGEST_FILE:
            raise UserError(f"it has more than {_LARGEST_FILE // 2**20} MiB")
        return parse(text.decode())
    except (UserError, OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: of text and of JSON
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({reason}): restore or remove it") from error


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML text as plain data; raises UserError or one of yaml's errors."""
    return plain_data(yaml.load(text, Loader=YAML_LOADER))
