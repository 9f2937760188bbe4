"""Libraries that only an extra installs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastfcn_pl.core.types import UserError


def import_library(name: str, extra: str, files: str = "files of this format") -> Any:
    """Import a library that `files` need; raises UserError with the command that installs it."""
    try:
        return import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        raise UserError(f"{files} need {library}: pip install 'fastfcn-pl[{extra}]'") from error
