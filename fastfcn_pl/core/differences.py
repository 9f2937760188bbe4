"""Differences of two nested mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the dotted keys at which two nested mappings differ, with both values; None stands for a missing one."""
    changes: list[tuple[str, Any, Any]] = []
    for key in [*first, *(key for key in second if key not in first)]:
        one, other = first.get(key), second.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            changes += [(f"{key}.{inner}", a, b) for inner, a, b in differences(one, other)]
        elif one != other:
            changes.append((str(key), one, other))
    return changes
