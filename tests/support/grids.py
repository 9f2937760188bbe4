"""Samples of grids of parameters; the exhaustive tests run the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def sample(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Return `values` as parameters of a test, all but `kept` marked as exhaustive."""
    values = list(values)
    unknown = [value for value in kept if value not in values]
    assert not unknown, f"{unknown} are not in the grid"
    return [value if value in kept else pytest.param(value, marks=pytest.mark.exhaustive) for value in values]
