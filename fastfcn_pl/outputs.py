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

from fastfcn_pl.contracts import UserError, listed
from fastfcn_pl.data.walk import identity
from fastfcn_pl.staging import refusal, staged

FILE = "predict.json"
"""The record of what made the labels. It is older than all of them: what is older still was made by another network."""
Targets = dict[str, dict[str, Path]]
"""The files to write of each input, by kind."""


def is_output(output: Path, kinds: Collection[str]) -> Callable[[Path], bool]:
    """Return a test that tells the folders of labels in `output`, and in other outputs, from folders of images."""
    ours = identity(output) if os.path.isdir(output) else None

    def test(folder: Path) -> bool:
        around = folder.parent
        return folder.name in kinds and (os.path.isfile(around / FILE) or identity(around) == ours)

    return test


@contextmanager
def made(output: Path, first: Path) -> Iterator[None]:
    """Make the folder `output`, and remove it at the end where nothing was written.

    Raises UserError that names the `first` file to write where the disk does not take it.
    """
    missing = [folder for folder in (output, *output.parents) if not os.path.lexists(folder)]
    try:
        try:
            output.mkdir(parents=True, exist_ok=True)
            if not os.access(output, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except FileExistsError as error:
            raise refusal(first, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))) from error
        except OSError as error:
            raise refusal(first, error) from error
        yield
    finally:
        with suppress(OSError):
            if os.listdir(output) == [FILE]:
                os.unlink(output / FILE)
        for folder in missing:
            with suppress(OSError):  # what is not empty stays
                folder.rmdir()


def begin(output: Path, made_by: dict[str, Any], source: Path, targets: Targets, overwrite: bool) -> Targets:
    """Record that `targets`, named as images below `source`, are `made_by` a network; return those not yet made.

    Raises UserError where some were made by another one, or of other images, unless they are to be overwritten.
    """
    path, here = output / FILE, str(source.absolute())
    with _locked(output):
        there = [file for files in targets.values() for file in files.values() if os.path.isfile(file)]
        known = _read(path)
        if known is None:
            if there and not overwrite:
                raise UserError(
                    f"{there[0]} is there already, and no {FILE} in {output} says what made it: take another output=, "
                    "or overwrite=true"
                )
            _write(path, {**made_by, "inputs": [here]})
            return targets
        changed = [
            f"{key}: {str(known[key])[:12]} then, {str(made_by[key])[:12]} now"
            for key in made_by.keys() & known.keys() - {"checkpoint"}  # it may have been moved
            if made_by[key] != known[key]
        ]
        since = path.stat().st_mtime_ns
        fresh = {file for file in there if file.stat().st_mtime_ns >= since}
        if overwrite and (changed or here not in known["inputs"]):
            _write(path, {**made_by, "inputs": [here]})
            return targets
        if changed:
            raise UserError(
                f"{output} holds what another network made ({', '.join(changed)}): take another output=, or "
                "overwrite=true"
            )
        if fresh and here not in known["inputs"]:
            raise UserError(
                f"{min(fresh)} was made of an image in {listed(known['inputs'], 2)}, not in {here}: take another "
                "output=, or overwrite=true"
            )
        kept = {**known, **made_by, "inputs": [*dict.fromkeys([*known["inputs"], here])]}
        if kept != known:
            _write(path, kept, since)
        if overwrite:
            return targets
        return {name: files for name, files in targets.items() if not fresh.issuperset(files.values())}


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
    with staged(path) as hidden:
        hidden.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if time is not None:
            os.utime(hidden, ns=(time, time))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from the record in `folder` meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a disk without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
