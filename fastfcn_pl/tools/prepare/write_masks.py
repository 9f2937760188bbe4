"""Writing label maps, one PNG each, on every core; what is there already is not done again."""

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
"""The name of an image without its extension: no path, which could lead out of the data set."""


def write_all(
    read: Callable[[Origin], np.ndarray], tasks: Sequence[tuple[Origin, Path]], num_workers: int | None
) -> None:
    """Write what `read` returns for each origin, ids `(H, W)` of 8 bits, to the path beside it, where that is missing.

    `num_workers` processes do it; None for as many as there are cores, 0 for none but this one.
    """
    lacking = [task for task in tasks if not task[1].exists()]
    before = len(tasks) - len(lacking)
    with bar("converting labels", of_bytes=False) as update:
        update(before, len(tasks))
        for done, _ in enumerate(parallel_map(partial(_write, read), lacking, num_workers), start=before + 1):
            update(done, len(tasks))


def _write(read: Callable[[Origin], np.ndarray], task: tuple[Origin, Path]) -> None:
    origin, path = task
    ids = read(origin)
    with atomic_write(path) as hidden:
        Image.fromarray(ids.astype(np.uint8, casting="safe")).save(hidden, format="PNG")


def write_list(names: Sequence[str], path: Path) -> None:
    """Write the names of a split, one a line."""
    with atomic_write(path) as hidden:
        hidden.write_text("".join(f"{name}\n" for name in names))


def read_list(path: Path) -> list[str]:
    """Return the names of a split; raises UserError where its list is missing, or holds something else than names."""
    remedy = f"remove the folder {path.parent.name} and run again, which unpacks it anew"
    if not path.is_file():
        raise UserError(f"{path} is missing: {remedy}")
    names = [name for line in read_lines(path, remedy) for name in line.split()]
    if wrong := [name for name in names if not NAME.fullmatch(name)]:
        raise UserError(f"{path} holds {wrong[0][:40]!a}, which is no name of an image: {remedy}")
    return names
