"""Provenance of a result: commit of the code, versions of the libraries, hardware."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

_LIBRARIES = ("torch", "lightning", "timm", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Return the commit, the library versions and the processor, for the record of a result."""
    return {
        "commit": git_commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "processor": _processor(),
    }


def git_commit() -> str | None:
    """Return the commit of the checkout, with `-dirty` after local changes; None for an installed package."""
    try:
        _git(
            "ls-files", "--error-unmatch", Path(__file__).name
        )  # fails for a copy installed inside another project's checkout
        return _git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()
