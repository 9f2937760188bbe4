"""Walk over folders as people keep them: with links, hidden files, and things that are no files."""

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
"""Names that operating systems, archives and file servers leave in folders, in lower case."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
Identity = tuple[int, int]
"""Device and inode of a folder, whatever path leads to it."""


def is_hidden(path: str | os.PathLike[str]) -> bool:
    """Tell whether the last part of a path is the name of a hidden file, or of one that an operating system left."""
    name = os.path.basename(os.fspath(path))
    return name.startswith(".") or name.lower() in _SYSTEM


def strangeness(path: str | os.PathLike[str]) -> str | None:
    """Return what is in the place of a regular file, such as "a FIFO"; None for a file, and for a path to nothing."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except OSError:
        return None


def identity(path: str | os.PathLike[str]) -> Identity:
    """Return what two paths to one folder have in common."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def walk(
    folder: Path,
    suffixes: Collection[str],
    *,
    without: Callable[[Path], bool] = lambda folder: False,
    say: Callable[[str], None] = warnings.warn,
) -> Iterator[Path]:
    """Yield the files in `folder` and below whose name ends in one of `suffixes`, in order of their paths.

    Links to folders are followed. Hidden files and folders are left out, and so are the subfolders for which `without`
    is true. `say` gets a line for a name with such a suffix that is no file (a FIFO, say), for a link that leads back
    to a folder around it, and for a folder that cannot be listed. A link to nothing is yielded: its file is missing.
    """
    root = Path(folder)
    pending: list[tuple[os.DirEntry[str], frozenset[Identity]]] = []

    def enter(place: Path, around: frozenset[Identity]) -> None:
        try:
            with os.scandir(place) as listing:
                entries = sorted(listing, key=lambda entry: entry.name, reverse=True)
            inside = around | {identity(place)}
        except OSError as error:
            say(f"{place} cannot be listed ({error.strerror}): it is left out")
            return
        pending.extend((entry, inside) for entry in entries if not is_hidden(entry.name))

    enter(root, frozenset(identity(parent) for parent in root.resolve().parents))
    while pending:
        entry, around = pending.pop()
        path = Path(entry)
        named = path.suffix.lower() in suffixes
        if _is(entry, "dir"):
            if named:
                say(f"{path} is a folder, not a file: only what is in it is read")
            if identity(path) in around:
                say(f"{path} leads back to a folder that it is in: it is left out")
            elif not without(path):
                enter(path, around)
        elif named and not _is(entry, "file") and (strange := strangeness(path)):
            say(f"{path} is {strange}, not a file: it is left out")
        elif named:
            yield path


def _is(entry: os.DirEntry[str], kind: str) -> bool:
    """Tell whether an entry is a file or a folder; a link in circles is neither."""
    try:
        return entry.is_dir() if kind == "dir" else entry.is_file()
    except OSError:
        return False
