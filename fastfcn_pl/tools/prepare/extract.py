"""Safe, atomic extraction of files and folders from zip and tar archives."""

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
"""Name, whether it is a folder, size in bytes, and content; None for folders, links and devices."""
TAR_SUFFIXES = (".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")
_NAME_ERRORS = {
    errno.EEXIST,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
}
"""Error numbers caused by a member's name, or by a conflict with another member."""


class BrokenArchiveError(UserError):
    """Error for an archive that is unusable and must be replaced."""


def extract(archive: Path, inside: str, names: list[str], into: Path, folders: Collection[str] = ()) -> None:
    """Extract the files and folders `names`, which lie at `inside` in the archive, to `into`.

    None of `names` may exist in `into`; they appear there after the whole archive has been read. A file without the
    suffix of an archive is treated as its own only member. Raises UserError for links, for paths that lead out of the
    archive and for a full disk. Raises BrokenArchiveError if the archive is damaged or truncated, if a name is
    missing, or if one of `folders` is a file.
    """
    staging = into / f".{archive.name}"
    with disk_errors_reported(into):
        _remove(staging)  # a leftover of a killed run
        staging.mkdir(parents=True)
        try:
            _extract(archive, [PurePosixPath(inside, name) for name in names], staging)
            for name in names:
                path = staging / inside / name
                if not path.exists() or (name in folders and not path.is_dir()):
                    member = PurePosixPath(inside, name)
                    fault = f"has a file {member} instead of a folder" if path.exists() else f"has no {member} in it"
                    raise BrokenArchiveError(f"{archive} {fault}")
            os.sync()  # otherwise a crash of the machine could leave names without content
            for name in names:
                (staging / inside / name).replace(into / name)
        finally:
            _remove(staging)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _extract(archive: Path, wanted: list[PurePosixPath], folder: Path) -> None:
    size = archive.stat().st_size
    try:
        with archive.open("rb") as file, bar(f"unpacking {archive.name}") as update:
            for name, is_folder, length, content in _members(archive, file):
                path = _safe_path(archive, name)
                if not any(path.is_relative_to(name) for name in wanted):
                    continue
                if content is None and not is_folder:
                    raise UserError(f"{archive} contains the link or device {_printable(name)}: get another copy")
                if length > (free := shutil.disk_usage(folder).free):
                    raise UserError(
                        f"{archive} has {length:,} bytes in {_printable(name)}, but {folder.parent} has only "
                        f"{free:,} free: free some space, or get another copy"
                    )
                _write(archive, name, folder / path, content)
                update(min(file.tell(), size), size)
            update(size, size)
    except UserError:
        raise
    except Exception as error:  # decoders raise anything for a damaged archive
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BrokenArchiveError(f"{archive} cannot be unpacked ({reason})") from error


def _write(archive: Path, name: str, target: Path, content: IO[bytes] | None) -> None:
    """Write a member; raises BrokenArchiveError if its name is invalid or conflicts with another member."""
    try:
        name.encode()
        (target.parent if content else target).mkdir(parents=True, exist_ok=True)
        output = target.open("wb") if content else None
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno not in _NAME_ERRORS:
            raise
        reason = "is not UTF-8" if isinstance(error, UnicodeError) else f"cannot be created ({error.strerror})"
        raise BrokenArchiveError(f"{archive} contains the path {_printable(name)}, which {reason}") from error
    if content and output:
        with content, output:
            shutil.copyfileobj(content, output, 1 << 20)


def _printable(name: str) -> str:
    """Return a name escaped and shortened for a message."""
    return ascii(name if len(name) < 100 else f"{name[:40]}...{name[-40:]}")


def _safe_path(archive: Path, name: str) -> PurePosixPath:
    """Return the path of a member; raises UserError if it leads out of the target folder.

    zipfile has no counterpart of tarfile's data filter, and both kinds of archive should give one message.
    """
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name) or "\0" in name:
        raise UserError(f"{archive} contains the path {_printable(name)}, which leads out of it: get another copy")
    return PurePosixPath(name)


def _members(archive: Path, file: IO[bytes]) -> Iterator[Member]:
    if archive.suffix == ".zip":
        yield from _zip_members(file)
    elif archive.suffix in TAR_SUFFIXES:
        yield from _tar_members(file)
    else:
        yield archive.name, False, 0, archive.open("rb")


def _zip_members(file: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG)  # 0 if the archive was not created on Unix
            content = archive.open(info) if plain and not info.is_dir() else None
            yield info.filename, info.is_dir(), info.file_size, content


class _StrictTarInfo(tarfile.TarInfo):
    """Tar member that reports a broken header, which tarfile would accept as the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the stubs lack it
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it is truncated: {error}") from error


def _tar_members(file: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(fileobj=file, tarinfo=_StrictTarInfo) as tar:
        for member in tar:
            yield member.name, member.isdir(), member.size, tar.extractfile(member) if member.isreg() else None
        while tar.fileobj and tar.fileobj.read(1 << 20):  # gzip checks its checksum at the end
            pass
