"""Keys and values of the settings of runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from fastfcn_pl.engine.hydra_job import override_key
from fastfcn_pl.engine.match import NAMES

_MACHINE_SPECIFIC_DATA = ("data.root", "data.num_workers", "data.loader")
_OF_THE_RECORD = ("run_dir", "logger", "diagnostics", "hydra", "checkpoint", "resume", "debug", "trust")
_MACHINE_SPECIFIC = (*_OF_THE_RECORD, *_MACHINE_SPECIFIC_DATA)


def is_machine_specific(key: str) -> bool:
    """Tell whether a key depends on the machine or on how the run is recorded, without influence on its outcome."""
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in _MACHINE_SPECIFIC)


def has_overrides(setting: Callable[[str], str | None], overrides: str) -> bool:
    """Tell whether a run, given by `Run.setting`, has all `overrides`, which spaces separate."""
    pairs = (override.partition("=") for override in overrides.split())
    return all(_is_value(text, setting(override_key(key))) for key, _, text in pairs)


def _is_value(text: str, setting: str | None) -> bool:
    """Tell whether the `text` of an override, such as `[1,2]`, is the value that a run has as `setting`."""
    try:
        return setting == text or setting == format_value(yaml.safe_load(text))
    except yaml.YAMLError:
        return False


def format_value(value: Any) -> str:
    """Return a value as it is written in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, dict) else str(value)


def equal_cost_notes(configs: Iterable[dict[str, Any]]) -> list[str]:
    """Return a sentence for each kind of cost that widths were chosen for."""
    requests = [config["match"] for config in configs if (config.get("match") or {}).get("what")]
    sentences = (
        f"Equal cost: the neck's width is chosen for the {NAMES.get(request['what'], request['what'])} of "
        f"{request['of']}, within {100 * request['within']:g} %; the ratio of the two is in brackets."
        for request in requests
    )
    return list(dict.fromkeys(sentences))
