"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastfcn_pl.contracts import UserError

OF_THE_DISK = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOTDIR,
}
"""Errors of a disk that takes no file."""


@contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """Yield a hidden path beside `path` to write to; what is there at the end gets its name, in one step.

    Where writing fails, what `path` held before stays. Raises UserError where the disk does not take the file.
    """
    path = Path(path)
    hidden = path.with_name(f".{path.name}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield hidden
            with hidden.open("rb") as file:
                os.fsync(file.fileno())  # else a crash of the machine could leave the name without the content
            hidden.replace(path)
    finally:
        with suppress(OSError):  # it is not there when all went well
            hidden.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise UserError where the disk does not take what is written to `path` meanwhile."""
    try:
        yield
    except OSError as error:
        if error.errno in OF_THE_DISK:
            raise UserError(
                f"{path} cannot be written ({error.strerror}): make room there, or write elsewhere"
            ) from error
        raise
