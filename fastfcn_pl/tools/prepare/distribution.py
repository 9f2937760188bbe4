"""Distribution of a data set: its archives, the files to extract, and the conversion of labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.prepare.download import Download, check_file, mismatch
from fastfcn_pl.tools.prepare.extract import BrokenArchiveError, extract

Convert = Callable[[Path, int | None], None]
"""Converts label maps below a root, in a number of processes (None: one for each core)."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive that a data set's authors distribute.

    `take` lists files, and folders as names without an extension, which lie at `inside` in the archive and are
    extracted `into` a folder of the root. `url` is the address of the archive, or of the registration if it needs an
    `account`. `checksum` is `<algorithm>:<digits>` or None.
    """

    file: str
    url: str
    account: bool
    checksum: str | None
    inside: str
    into: str
    take: list[str]

    def missing(self, root: Path) -> list[str]:
        """Return the names in `take` that do not exist yet."""
        return [name for name in self.take if not (root / self.into / name).exists()]

    def unpack(self, root: Path, folder: Path, mirror: str | None, download: Download) -> None:
        """Extract what is missing to `root` from the archive in `folder`, and download it first if necessary.

        An unusable archive is renamed to `<file>.broken`, so that another run starts afresh.
        """
        missing, path = self.missing(root), folder / self.file
        if not missing:
            return
        check_file(path)
        if not path.exists():
            download(f"{mirror.rstrip('/')}/{self.file}" if mirror else self.url, path, self.checksum)
        elif difference := mismatch(path, self.checksum):
            raise UserError(f"{path} is not the expected file ({difference}): {_set_aside(path)}")
        try:
            folders = [name for name in missing if not PurePath(name).suffix]
            extract(path, self.inside, missing, root / self.into, folders)
        except BrokenArchiveError as error:
            raise UserError(f"{error}: {_set_aside(path)}") from error


def _set_aside(path: Path) -> str:
    broken = path.with_name(f"{path.name}.broken")
    try:
        path.replace(broken)
    except OSError:  # the folder is not writable
        return "replace it and run again, or choose another folder with archives=<dir>"
    return f"it was renamed to {broken.name}; run again with another copy"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Archives of a data set, and the conversion of its labels; None if they are read as distributed."""

    archives: dict[str, Archive]
    convert: Convert | None

    def prepare(
        self, root: Path, folder: Path, mirror: str | None, download: Download, num_workers: int | None
    ) -> None:
        """Do what is still missing for the data set at `root`; `folder` holds or receives the archives."""
        needed = [archive for archive in self.archives.values() if archive.account and archive.missing(root)]
        absent = [archive for archive in needed if not (folder / archive.file).exists()]
        if absent and not mirror:
            raise UserError(
                f"{' and '.join(archive.file for archive in absent)} cannot be downloaded without an account: register "
                f"at {absent[0].url}, put the files into {folder} (or set archives=<dir>), and run again"
            )
        for archive in self.archives.values():
            archive.unpack(root, folder, mirror, download)
        if self.convert is not None:
            self.convert(root, num_workers)
