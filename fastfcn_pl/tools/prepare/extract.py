"""Folders out of zip and tar archives: whole or not at all, and never outside of where they belong."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Self

from fastfcn_pl.core.atomic_io import DISK_ERRORS, disk_errors_reported
from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.progress_bar import bar

Member = tuple[str, bool, int, IO[bytes] | None]
"""Name, whether it is a folder, bytes, content; a member that is neither a folder nor a plain file has none."""
TARS = (".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")
_OF_THE_NAME = {
    errno.EEXIST,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
}
"""Errors of making a file that come from its name, or from the files that an archive holds beside it."""


class BrokenArchiveError(UserError):
    """An archive that is of no use, so that another copy is needed."""


def extract(archive: Path, inside: str, names: list[str], into: Path, folders: Collection[str] = ()) -> None:
    """Take the files and folders `names`, found at `inside` in the archive, to `into`, which has none of them yet.

    A file that is no archive by its name is its own only member. Each of `names` appears in one step, when the whole
    archive has been read. Raises UserError for an archive with links, with paths that lead out of it or with more than
    the disk has room for, and BrokenArchiveError for one that is damaged, truncated, lacks a name or has a file instead
    of one of `folders`.
    """
    hidden = into / f".{archive.name}"
    with disk_errors_reported(into):
        _remove(hidden)  # left by a run that was killed
        hidden.mkdir(parents=True)
        try:
            _extract(archive, [PurePosixPath(inside, name) for name in names], hidden)
            for name in names:
                path = hidden / inside / name
                if not path.exists() or (name in folders and not path.is_dir()):
                    what = "only a file" if path.exists() else "no"
                    raise BrokenArchiveError(f"{archive} has {what} {PurePosixPath(inside, name)} in it")
            os.sync()  # else a crash of the machine could leave names without content
            for name in names:
                (hidden / inside / name).replace(into / name)
        finally:
            _remove(hidden)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _extract(archive: Path, wanted: list[PurePosixPath], folder: Path) -> None:
    size = archive.stat().st_size
    try:
        with archive.open("rb") as file, bar(f"unpacking {archive.name}") as update:
            for name, is_folder, length, content in _members(archive, file):
                path = _safe(archive, name)
                if not any(path.is_relative_to(it) for it in wanted):
                    continue
                if content is None and not is_folder:
                    raise UserError(f"{archive} holds a link or device, {name}, which is refused: get another copy")
                if length > (free := shutil.disk_usage(folder).free):
                    raise UserError(
                        f"{archive} holds {length:,} bytes in {_shown(name)}, but the disk of {folder.parent} has room "
                        f"for {free:,}: make room there, or get another copy"
                    )
                _write(archive, name, folder / path, content)
                update(min(file.tell(), size), size)
            update(size, size)
    except UserError:
        raise
    except Exception as error:  # the decoders of a damaged archive raise whatever they stumble over
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BrokenArchiveError(f"{archive} cannot be unpacked ({reason})") from error


def _write(archive: Path, name: str, target: Path, content: IO[bytes] | None) -> None:
    """Make the folder or file of a member; raises BrokenArchiveError where its name or another member is in the way."""
    try:
        name.encode()
        (target.parent if content else target).mkdir(parents=True, exist_ok=True)
        output = target.open("wb") if content else None
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno not in _OF_THE_NAME:
            raise
        reason = "is not UTF-8" if isinstance(error, UnicodeError) else f"cannot be made ({error.strerror})"
        raise BrokenArchiveError(f"{archive} holds the path {_shown(name)}, which {reason}") from error
    if content and output:
        with content, output:
            shutil.copyfileobj(content, output, 1 << 20)


def _shown(name: str) -> str:
    """Return a name for a message, whatever is in it."""
    return ascii(name if len(name) < 100 else f"{name[:40]}...{name[-40:]}")


def _safe(archive: Path, name: str) -> PurePosixPath:
    """Return the path of a member; raises UserError for one that leads out of the folder it is unpacked in."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name) or "\0" in name:
        raise UserError(
            f"{archive} holds the path {_shown(name)}, which leads out of it: nothing was unpacked; get another copy"
        )
    return PurePosixPath(name)


def _members(archive: Path, file: IO[bytes]) -> Iterator[Member]:
    if archive.suffix == ".zip":
        yield from _of_zip(file)
    elif archive.suffix in TARS:
        yield from _of_tar(file)
    else:
        yield archive.name, False, 0, archive.open("rb")


def _of_zip(file: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(file) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG)  # 0 where the archive was not made on Unix
            content = opened.open(info) if plain and not info.is_dir() else None
            yield info.filename, info.is_dir(), info.file_size, content


class _Member(tarfile.TarInfo):
    """A member of a tar file that ends as tar files end: tarfile itself takes a broken header for the end."""

    @classmethod
    def fromtarfile(cls, opened: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(opened)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the stubs lack it
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it is truncated: {error}") from error


def _of_tar(file: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(fileobj=file, tarinfo=_Member) as opened:
        for member in opened:
            yield member.name, member.isdir(), member.size, opened.extractfile(member) if member.isreg() else None
        while opened.fileobj and opened.fileobj.read(1 << 20):  # to the end, where gzip has its checksum
            pass
