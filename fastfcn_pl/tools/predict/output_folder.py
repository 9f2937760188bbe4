"""The folder that `predict` writes to: what made the labels in it, and which are still to be made."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastfcn_pl.core.atomic_io import atomic_write, write_error
from fastfcn_pl.core.types import UserError, listed
from fastfcn_pl.data.io.walk import inode

FILE = "PROVENANCE"
"""The record, in JSON, of what made the labels. It is older than they: what is older still is of another network."""
Targets = dict[str, dict[str, Path]]
"""The files to write of each input, by kind."""


def is_output(output: Path, kinds: Collection[str]) -> Callable[[Path], bool]:
    """Return a test that tells the folders of labels in `output`, and in other outputs, from folders of images."""
    ours = inode(output) if os.path.isdir(output) else None

    def test(folder: Path) -> bool:
        around = folder.parent
        return folder.name in kinds and (os.path.isfile(around / FILE) or inode(around) == ours)

    return test


@contextmanager
def opened(output: Path, made_by: dict[str, Any], source: Path, targets: Targets, overwrite: bool) -> Iterator[Targets]:
    """Make the folder `output` for what is `made_by` a network of images below `source`; yield the targets to make.

    It is removed at the end if nothing was written. Others may write to it meanwhile what the same network makes of the
    same images. Raises UserError where the disk does not take it, and where there are labels made by another network,
    or of other images, unless they are to be overwritten.
    """
    first = next(file for files in targets.values() for file in files.values())
    missing = [folder for folder in (output, *output.parents) if not os.path.lexists(folder)]
    try:
        _make(output, first)
        descriptor = os.open(output, os.O_RDONLY)
        try:
            alone = _locked(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not alone:
                _locked(descriptor, fcntl.LOCK_SH)
            wanted, record, time = _plan(output, made_by, str(source.absolute()), targets, overwrite)
            if record is not None and not alone:
                raise UserError(f"another process is at work in {output}: wait for its end, or take another output=")
            if record is not None:
                _write(output / FILE, record, time)
            _locked(descriptor, fcntl.LOCK_SH)
            yield wanted
        finally:
            if _locked(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
                _tidy(output, targets)
            os.close(descriptor)
    finally:
        for folder in missing:
            with suppress(OSError):  # what is not empty stays
                folder.rmdir()


def _tidy(output: Path, targets: Targets) -> None:
    """Remove folders of targets in which nothing was written, and the record if it stands alone."""
    files = [file for files in targets.values() for file in files.values()]
    for folder in sorted(
        {folder for file in files for folder in file.parents if output in folder.parents}, reverse=True
    ):
        with suppress(OSError):  # it is not empty, or not there
            folder.rmdir()
    if os.listdir(output) == [FILE]:
        os.unlink(output / FILE)


def _make(output: Path, first: Path) -> None:
    """Make a folder that can be written to; raises UserError, which names the `first` file of it."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileExistsError as error:
        raise write_error(first, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))) from error
    except OSError as error:
        raise write_error(first, error) from error


def _plan(
    output: Path, made_by: dict[str, Any], here: str, targets: Targets, overwrite: bool
) -> tuple[Targets, dict[str, Any] | None, int | None]:
    """Return the targets to make, and the record to write before, if any, with the time that it is to have."""
    path = output / FILE
    there = [file for files in targets.values() for file in files.values() if os.path.isfile(file)]
    known, new = _read(path), {**made_by, "inputs": [here]}
    if known is None:
        if there and not overwrite:
            raise UserError(
                f"{there[0]} is there already, and no {FILE} in {output} says what made it: take another output=, or "
                "overwrite=true"
            )
        return targets, new, None
    changed = [
        f"{key}: {str(known[key])[:12]} then, {str(made_by[key])[:12]} now"
        for key in made_by
        if key in known and made_by[key] != known[key] and key != "checkpoint"  # a file may have been moved
    ]
    if overwrite and (changed or here not in known["inputs"]):
        return targets, new, None
    if changed:
        raise UserError(
            f"{output} holds what another network made ({', '.join(changed)}): take another output=, or overwrite=true"
        )
    since = path.stat().st_mtime_ns
    fresh = {file for file in there if file.stat().st_mtime_ns >= since}
    if fresh and here not in known["inputs"]:
        raise UserError(
            f"{min(fresh)} was made of an image in {listed(known['inputs'], 2)}, not in {here}: take another output=, "
            "or overwrite=true"
        )
    merged = {**known, **made_by, "checkpoint": known.get("checkpoint")}
    merged["inputs"] = [*dict.fromkeys([*known["inputs"], here])]
    record = merged if merged != known else None
    if not overwrite:
        targets = {name: files for name, files in targets.items() if not fresh.issuperset(files.values())}
    return targets, record, since


def fingerprint(checkpoint: str) -> str:
    """Return the SHA-256 of a file, by which it is known under any name."""
    if not os.path.isfile(checkpoint):
        raise UserError(f"checkpoint={checkpoint}: no such file; a run's are in its folder checkpoints/")
    with open(checkpoint, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {**known, "inputs": [str(folder) for folder in known["inputs"]]}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} cannot be read ({error}): take another output=, or remove it") from error


def _write(path: Path, record: dict[str, Any], time: int | None = None) -> None:
    """Write a record, as if at `time` in nanoseconds, or now."""
    with atomic_write(path) as hidden:
        hidden.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if time is not None:
            os.utime(hidden, ns=(time, time))


def _locked(descriptor: int, kind: int) -> bool:
    """Tell whether a lock was given; a disk without locks gives each."""
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
