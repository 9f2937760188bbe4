"""Recursive listing of folders that copes with links, loops, hidden files and special files."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

_SYSTEM = {
    "__macosx",
    "@eadir",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "desktop.ini",
}
"""Names in lower case that operating systems, archives and file servers leave in folders."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
Inode = tuple[int, int]
"""Device and inode, which are the same for all paths to a folder."""


def is_hidden(path: str | os.PathLike[str]) -> bool:
    """Return whether a path names a hidden file, or one that an operating system leaves behind."""
    name = os.path.basename(os.fspath(path))
    return name.startswith(".") or name.lower() in _SYSTEM


def non_file_kind(path: str | os.PathLike[str]) -> str | None:
    """Return what a path is if not a regular file, such as "a FIFO"; None for a file or a missing path."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except OSError:
        return None


def inode(path: str | os.PathLike[str]) -> Inode:
    """Return the device and inode of a path."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def walk(
    folder: Path,
    suffixes: Collection[str],
    *,
    skip: Callable[[Path], bool] = lambda folder: False,
    warn: Callable[[str], None] = warnings.warn,
) -> Iterator[Path]:
    """Yield the files in `folder` and below whose name ends in one of `suffixes`, sorted by path.

    Links are followed; a broken link is yielded like a missing file. Hidden files and folders are skipped, and so are
    subfolders for which `skip` is true. `warn` is called with a line about each other skipped entry: a special file
    with one of the suffixes, a link to a parent folder, a folder that cannot be listed.
    """
    root = Path(folder)
    pending: list[tuple[os.DirEntry[str], frozenset[Inode]]] = []

    def enter(folder: Path, parents: frozenset[Inode]) -> None:
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name, reverse=True)
            parents = parents | {inode(folder)}
        except OSError as error:
            warn(f"{folder} cannot be listed ({error.strerror}): it is skipped")
            return
        pending.extend((entry, parents) for entry in entries if not is_hidden(entry.name))

    enter(root, frozenset(inode(parent) for parent in root.resolve().parents))
    while pending:
        entry, parents = pending.pop()
        path = Path(entry)
        has_suffix = path.suffix.lower() in suffixes
        if _is(entry, "folder"):
            if has_suffix:
                warn(f"{path} is a folder, not a file: only the files in it are read")
            if inode(path) in parents:
                warn(f"{path} leads back to a folder that contains it: it is skipped")
            elif not skip(path):
                enter(path, parents)
        elif has_suffix and not _is(entry, "file") and (kind := non_file_kind(path)):
            warn(f"{path} is {kind}, not a file: it is skipped")
        elif has_suffix:
            yield path


def _is(entry: os.DirEntry[str], kind: str) -> bool:
    """Return whether an entry is a "folder" or a "file", without a system call except for links."""
    try:
        return entry.is_dir() if kind == "folder" else entry.is_file()
    except OSError:  # a circular link
        return False
