"""Folders out of zip and tar archives: whole or not at all, and never outside of where they belong."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Self

from fastfcn_pl.contracts import UserError
from fastfcn_pl.data.sources.progress import bar
from fastfcn_pl.staging import writing

Member = tuple[str, bool, IO[bytes] | None]
"""Name, whether it is a folder, content; a member that is neither a folder nor a plain file has none."""
BROKEN = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError)
"""What reading an archive raises that is truncated, damaged, encrypted, or none at all."""


class BrokenArchiveError(UserError):
    """An archive that is of no use, so that another copy is needed."""


def extract(archive: Path, inside: str, names: list[str], into: Path) -> None:
    """Take the files and folders `names`, found at `inside` in the archive, to `into`, which has none of them yet.

    A file that is no archive by its name is its own only member. Each of `names` appears in one step, when the whole
    archive has been read. Raises UserError for an archive with links or with paths that lead out of it, and
    BrokenArchiveError for one that is damaged, truncated or lacks a name.
    """
    hidden = into / f".{archive.name}"
    with writing(into):
        shutil.rmtree(hidden, ignore_errors=True)  # left by a run that was killed
        hidden.mkdir(parents=True)
        try:
            _extract(archive, [PurePosixPath(inside, name) for name in names], hidden)
            for name in names:
                if not (hidden / inside / name).exists():
                    raise BrokenArchiveError(f"{archive} has no {PurePosixPath(inside, name)} in it")
            os.sync()  # else a crash of the machine could leave names without content
            for name in names:
                (hidden / inside / name).replace(into / name)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def _extract(archive: Path, wanted: list[PurePosixPath], folder: Path) -> None:
    size = archive.stat().st_size
    try:
        with archive.open("rb") as file, bar(f"unpacking {archive.name}") as update:
            for name, is_folder, content in _members(archive, file):
                path = _safe(archive, name)
                if not any(path.is_relative_to(it) for it in wanted):
                    continue
                target = folder / path
                if is_folder:
                    target.mkdir(parents=True, exist_ok=True)
                elif content is None:
                    raise UserError(f"{archive} holds a link or device, {name}, which is refused: get another copy")
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with content, target.open("wb") as output:
                        shutil.copyfileobj(content, output, 1 << 20)
                update(min(file.tell(), size), size)
            update(size, size)
    except BROKEN as error:
        raise BrokenArchiveError(f"{archive} cannot be unpacked ({error})") from error


def _safe(archive: Path, name: str) -> PurePosixPath:
    """Return the path of a member; raises UserError for one that leads out of the folder it is unpacked in."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name) or "\0" in name:
        raise UserError(
            f"{archive} holds the path {name!r}, which leads out of it: nothing was unpacked; get another copy"
        )
    return PurePosixPath(name)


def _members(archive: Path, file: IO[bytes]) -> Iterator[Member]:
    if archive.suffix == ".zip":
        yield from _of_zip(file)
    elif archive.suffix in (".tar", ".gz", ".tgz"):
        yield from _of_tar(file)
    else:
        yield archive.name, False, archive.open("rb")


def _of_zip(file: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(file) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG)  # 0 where the archive was not made on Unix
            yield info.filename, info.is_dir(), opened.open(info) if plain and not info.is_dir() else None


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
            yield member.name, member.isdir(), opened.extractfile(member) if member.isreg() else None
        while opened.fileobj and opened.fileobj.read(1 << 20):  # to the end, where gzip has its checksum
            pass
