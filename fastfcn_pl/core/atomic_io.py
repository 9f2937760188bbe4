"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastfcn_pl.core.types import UserError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of a disk that takes no file at all."""
OF_THE_DISK = FULL | {
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
"""Errors of a disk that does not take a file."""
_LONGEST_NAME = 255
"""Bytes that a name may have on most disks."""


@contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """Yield a hidden path beside `path` to write to; what is there at the end gets its name, in one step.

    No other process is given the same hidden path meanwhile. One that a killed process left behind is used again. If
    writing fails, what `path` held before stays. Raises UserError if the disk does not take the file.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden, lock = _hidden(path)
    except OSError as error:
        raise refusal(path, error) from error
    try:
        with writing(path):
            yield hidden
            with hidden.open("rb") as file:
                os.fsync(file.fileno())  # else a crash of the machine could leave the name without the content
            hidden.replace(path)
    except BaseException:
        with suppress(OSError):
            hidden.unlink()
        raise
    finally:
        os.close(lock)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise UserError where the disk does not take what is written to `path` meanwhile."""
    try:
        yield
    except OSError as error:
        if error.errno in OF_THE_DISK:
            raise refusal(path, error) from error
        raise


def refusal(path: Path, error: OSError) -> UserError:
    """Return the line for a file that the disk does not take."""
    return UserError(f"{path} cannot be written ({error.strerror}): make room there, or write elsewhere")


def _hidden(path: Path) -> tuple[Path, int]:
    """Return a hidden file beside `path` for this process alone, with its suffix, and the descriptor that locks it."""
    name, suffix = f".{path.name}", path.suffix[:16]
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{suffix}"
    hidden = path.with_name(name)
    with suppress(OSError):
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and os.path.samestat(status, hidden.stat()):
                return hidden, descriptor
        except OSError:  # another process writes it, or the disk knows no locks
            pass
        os.close(descriptor)
    hidden = path.with_name(f".{secrets.token_hex(8)}{suffix}")
    return hidden, os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
