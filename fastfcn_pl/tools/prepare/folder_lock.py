"""Lock of a folder that makes other processes wait."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastfcn_pl.core.atomic_io import DISK_ERRORS

NAME = ".prepare.lock"
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create `folder` and hold its lock during the block; remove the folder again if it stays empty.

    A killed process leaves its lock file behind, but no lock. A folder that is not writable is not locked.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    descriptor = _lock(folder / NAME)
    try:
        yield
    finally:
        if descriptor is not None:
            (folder / NAME).unlink(missing_ok=True)  # while still holding the lock, see `_is_current`
            os.close(descriptor)
        for path in new:
            with suppress(OSError):
                path.rmdir()  # fails unless empty


def _lock(path: Path) -> int | None:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        except OSError as error:
            if error.errno in DISK_ERRORS:
                return None  # a later write reports the error
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is preparing data in {path.parent}: waiting for it to finish", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        if _is_current(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_current(descriptor: int, path: Path) -> bool:
    """Return whether `path` is still the open file; the previous holder of the lock removes it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
