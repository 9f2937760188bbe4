"""Names of commands in messages, as the running one was called."""

from __future__ import annotations

import os

MODULE = "python -m fastfcn_pl."
VARIABLE = "FASTFCN_PL_PROGRAM"
"""Environment variable with what stands before a command's name instead of `MODULE`; processes of a job inherit it."""


def as_called(text: str) -> str:
    """Return a message whose commands begin as this one was called, such as `fastfcn train`."""
    return text.replace(MODULE, os.environ.get(VARIABLE, MODULE))
