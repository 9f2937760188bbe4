"""Import of a command's function, whose libraries make a million objects."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any


def imported(job: str) -> Callable[..., Any]:
    """Return the function that `job` names, such as `fastfcn_pl.tools.train:train`.

    Python does not look for garbage meanwhile, nor later among the objects of these modules: they are never freed, and
    the search takes a quarter of the time that a command needs to start.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        function: Callable[..., Any] = resolve_name(job)
        gc.freeze()
        return function
    finally:
        if was_enabled:
            gc.enable()
