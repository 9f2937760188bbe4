"""Where a data set comes from: its archives, what to take out of them, and how its labels are converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.prepare.download import Download, check_file, mismatch
from fastfcn_pl.tools.prepare.extract import BrokenArchiveError, extract

Convert = Callable[[Path, int | None], None]
"""Writes label maps below the root that it is given, in as many processes (None: as there are cores)."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file that authors distribute.

    `take` are files and folders (the names without an extension) at `inside` in it, which go `into` a folder of the
    root. `url` is where the file is, or
    where one registers for it where it needs an `account`. `checksum` is `<algorithm>:<digits>`, or None for none.
    """

    file: str
    url: str
    account: bool
    checksum: str | None
    inside: str
    into: str
    take: list[str]

    def lacking(self, root: Path) -> list[str]:
        """Return what of `take` is not there yet."""
        return [name for name in self.take if not (root / self.into / name).exists()]

    def unpack(self, root: Path, folder: Path, mirror: str | None, download: Download) -> None:
        """Bring what is lacking to `root`, from the file in `folder`, which is downloaded where it is not there.

        A file that is of no use is set aside as `<file>.broken`, so that another run begins anew.
        """
        lacking, path = self.lacking(root), folder / self.file
        if not lacking:
            return
        check_file(path)
        if not path.exists():
            download(f"{mirror.rstrip('/')}/{self.file}" if mirror else self.url, path, self.checksum)
        elif found := mismatch(path, self.checksum):
            raise UserError(f"{path} is not the file that was expected ({found}): {_set_aside(path)}")
        try:
            folders = [name for name in lacking if not PurePath(name).suffix]
            extract(path, self.inside, lacking, root / self.into, folders)
        except BrokenArchiveError as error:
            raise UserError(f"{error}: {_set_aside(path)}") from error


def _set_aside(path: Path) -> str:
    broken = path.with_name(f"{path.name}.broken")
    try:
        path.replace(broken)
    except OSError:  # of a folder that is not ours to change
        return "replace it and run again, or name another folder with archives=<dir>"
    return f"it is set aside as {broken.name}; run again with another copy"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The archives of a data set, and what converts its labels; None where they are read as they are."""

    archives: dict[str, Archive]
    convert: Convert | None

    def prepare(
        self, root: Path, folder: Path, mirror: str | None, download: Download, num_workers: int | None
    ) -> None:
        """Do what is not done yet to have the data set at `root`; archives are in `folder`, or come there."""
        needed = [archive for archive in self.archives.values() if archive.account and archive.lacking(root)]
        missing = [archive for archive in needed if not (folder / archive.file).exists()]
        if missing and not mirror:
            raise UserError(
                f"{' and '.join(archive.file for archive in missing)} cannot be had without an account: register at "
                f"{missing[0].url}, put what you download into {folder} (or name its folder: archives=<dir>), run again"
            )
        for archive in self.archives.values():
            archive.unpack(root, folder, mirror, download)
        if self.convert is not None:
            self.convert(root, num_workers)
