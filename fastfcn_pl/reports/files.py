"""Files of a run, read whole; one that cannot be read is a mistake in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from fastfcn_pl.contracts import UserError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it


def read_yaml(path: Path) -> dict[str, Any]:
    """Return what a YAML file holds; an empty dict where there is no file, or a part of one."""
    if not path.is_file():
        return {}
    try:
        return yaml.load(path.read_text(), Loader=_LOADER)
    except yaml.YAMLError as error:
        raise UserError(
            f"{path} cannot be read as YAML ({' '.join(str(error).split())}): restore or remove it"
        ) from error


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds; None where there is no file."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): restore or remove it") from error
