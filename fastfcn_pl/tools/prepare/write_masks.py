"""Parallel writing of converted label maps as PNGs, and of lists of names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.name_lists import read_lines
from fastfcn_pl.data.io.parallel import parallel_map
from fastfcn_pl.tools.progress_bar import bar

Origin = TypeVar("Origin")
NAME = re.compile(r"\w[\w.-]{0,199}")
"""Pattern of an image name without extension; paths could lead out of the data set."""


def write_all(
    read: Callable[[Origin], np.ndarray], tasks: Sequence[tuple[Origin, Path]], num_workers: int | None
) -> None:
    """Write `read(origin)`, 8-bit ids `(H, W)`, to the path of each task `(origin, path)` that does not exist.

    Uses `num_workers` processes; None means one for each core, and 0 this process only.
    """
    missing = [task for task in tasks if not task[1].exists()]
    before = len(tasks) - len(missing)
    with bar("converting labels", of_bytes=False) as update:
        update(before, len(tasks))
        for done, _ in enumerate(parallel_map(partial(_write, read), missing, num_workers), start=before + 1):
            update(done, len(tasks))


def _write(read: Callable[[Origin], np.ndarray], task: tuple[Origin, Path]) -> None:
    origin, path = task
    ids = read(origin)
    with atomic_write(path) as temporary:
        Image.fromarray(ids.astype(np.uint8, casting="safe")).save(temporary, format="PNG")


def write_list(names: Sequence[str], path: Path) -> None:
    """Write the names of a split, one a line."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names))


def read_list(path: Path) -> list[str]:
    """Return the names of a split; raises UserError if its list is missing or has invalid names."""
    remedy = f"remove the folder {path.parent.name} and run again to extract it afresh"
    if not path.is_file():
        raise UserError(f"{path} is missing: {remedy}")
    names = [name for line in read_lines(path, remedy) for name in line.split()]
    if invalid := [name for name in names if not NAME.fullmatch(name)]:
        raise UserError(f"{path} contains {invalid[0][:40]!a}, which is not a valid image name: {remedy}")
    return names
