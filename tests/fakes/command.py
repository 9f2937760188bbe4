"""A command of a machine that this one is not."""

from __future__ import annotations

from pathlib import Path


def write_command(path: Path) -> Path:
    """Write a command that does nothing but note its arguments, and return the file with them."""
    noted = path.with_suffix(".txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "$@" >> {noted}\n')
    path.chmod(0o755)
    return noted
