"""Atomic writing of files: a reader sees the old content or the new one, never a part."""

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

DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Error numbers of a disk to which nothing can be written."""
DISK_ERRORS = DISK_FULL_ERRORS | {
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
"""Error numbers of a path to which nothing can be written."""
_MAX_NAME_BYTES = 255


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a hidden temporary path to write to; rename it to `path` at the end.

    The temporary file lies beside `path` and no other process gets the same one. A leftover of a killed process is
    reused. If writing fails, `path` keeps its old content. Raises UserError if the disk refuses the file.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = _open_temporary(path)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        with disk_errors_reported(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # otherwise a crash of the machine could leave the name without the content
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(lock)


@contextmanager
def disk_errors_reported(path: Path) -> Iterator[None]:
    """Raise UserError for a disk error in the block, which writes to `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise write_error(path, error) from error
        raise


def write_error(path: Path, error: OSError) -> UserError:
    """Return the error to raise if `path` cannot be written."""
    return UserError(
        f"{path} cannot be written ({error.strerror}): check permissions and free space, or write elsewhere"
    )


def _open_temporary(path: Path) -> tuple[Path, int]:
    """Return a hidden file beside `path`, with the same suffix, and the descriptor that holds its lock."""
    name, suffix = f".{path.name}", path.suffix[:16]
    if len(os.fsencode(name)) > _MAX_NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{suffix}"
    temporary = path.with_name(name)
    with suppress(OSError):
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and os.path.samestat(status, temporary.stat()):
                return temporary, descriptor
        except OSError:  # another process is writing it, or the file system has no locks
            pass
        os.close(descriptor)
    temporary = path.with_name(f".{secrets.token_hex(8)}{suffix}")
    return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
