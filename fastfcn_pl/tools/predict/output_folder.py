"""Output folder of `predict`: a record of the network that wrote it, and the files still to write."""

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
from fastfcn_pl.engine import network_folder

FILE = "PROVENANCE"
"""JSON record of the network that made the labels. Labels older than the record come from another network."""
Targets = dict[str, dict[str, Path]]
"""Output files of each input, by kind."""


def is_output(output: Path, kinds: Collection[str]) -> Callable[[Path], bool]:
    """Return a test for folders of labels, in `output` or in other outputs, which are not inputs."""
    output_inode = inode(output) if os.path.isdir(output) else None

    def test(folder: Path) -> bool:
        parent = folder.parent
        return folder.name in kinds and (os.path.isfile(parent / FILE) or inode(parent) == output_inode)

    return test


@contextmanager
def opened(output: Path, made_by: dict[str, Any], source: Path, targets: Targets, overwrite: bool) -> Iterator[Targets]:
    """Create the folder `output` for labels of images below `source`, and yield the targets still to write.

    `made_by` identifies the network. The folder is removed at the end if nothing was written. Other processes may
    write to it at the same time with the same network and images. Raises UserError if the folder is not writable, or
    if it has labels of another network or of other images and `overwrite` is false.
    """
    first = next(file for files in targets.values() for file in files.values())
    missing = [folder for folder in (output, *output.parents) if not os.path.lexists(folder)]
    try:
        _create(output, first)
        descriptor = os.open(output, os.O_RDONLY)
        try:
            exclusive = _try_lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not exclusive:
                _try_lock(descriptor, fcntl.LOCK_SH)
            pending, record, time = _plan(output, made_by, str(source.absolute()), targets, overwrite)
            if record is not None and not exclusive:
                raise UserError(f"another process is writing to {output}: wait for it, or choose another output=")
            if record is not None:
                _write(output / FILE, record, time)
            _try_lock(descriptor, fcntl.LOCK_SH)
            yield pending
        finally:
            if _try_lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
                _clean_up(output, targets)
            os.close(descriptor)
    finally:
        for folder in missing:
            with suppress(OSError):  # not empty
                folder.rmdir()


def _clean_up(output: Path, targets: Targets) -> None:
    """Remove empty folders of targets, and the record if nothing else is left."""
    files = [file for files in targets.values() for file in files.values()]
    for folder in sorted(
        {folder for file in files for folder in file.parents if output in folder.parents}, reverse=True
    ):
        with suppress(OSError):  # not empty, or missing
            folder.rmdir()
    if os.listdir(output) == [FILE]:
        os.unlink(output / FILE)


def _create(output: Path, first: Path) -> None:
    """Create a writable folder; raises UserError that names the `first` file to write."""
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
    """Return the targets to write, and the record to write first, if any, with its modification time."""
    path = output / FILE
    existing = [file for files in targets.values() for file in files.values() if os.path.isfile(file)]
    known, new = _read(path), {**made_by, "inputs": [here]}
    if known is None:
        if existing and not overwrite:
            raise UserError(
                f"{existing[0]} exists, and no {FILE} in {output} says which network made it: choose another output=, "
                "or set overwrite=true"
            )
        return targets, new, None
    changed = [
        f"{key}: was {str(known[key])[:12]}, is {str(made_by[key])[:12]}"
        for key in made_by
        if key in known and made_by[key] != known[key] and key != "checkpoint"  # the file may have been moved
    ]
    if overwrite and (changed or here not in known["inputs"]):
        return targets, new, None
    if changed:
        raise UserError(
            f"{output} has labels of another network ({', '.join(changed)}): choose another output=, or overwrite=true"
        )
    since = path.stat().st_mtime_ns
    fresh = {file for file in existing if file.stat().st_mtime_ns >= since}
    if fresh and here not in known["inputs"]:
        raise UserError(
            f"{min(fresh)} belongs to an image in {listed(known['inputs'], 2)}, not in {here}: choose another output=, "
            "or set overwrite=true"
        )
    merged = {**known, **made_by, "checkpoint": known.get("checkpoint")}
    merged["inputs"] = [*dict.fromkeys([*known["inputs"], here])]
    record = merged if merged != known else None
    if not overwrite:
        targets = {name: files for name, files in targets.items() if not fresh.issuperset(files.values())}
    return targets, record, since


def fingerprint(checkpoint: str) -> str:
    """Return the SHA-256 of a checkpoint, which identifies it under any name."""
    folder = network_folder.find(checkpoint)
    files = [Path(checkpoint)] if folder is None else network_folder.files(folder)
    digest = hashlib.sha256()
    for path in files:
        if not path.is_file():
            raise UserError(f"checkpoint={checkpoint}: no such file; a run keeps its own in checkpoints/")
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {**known, "inputs": [str(folder) for folder in known["inputs"]]}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} cannot be read ({error}): choose another output=, or remove the file") from error


def _write(path: Path, record: dict[str, Any], time: int | None = None) -> None:
    """Write a record, with the modification time `time` in nanoseconds if given."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if time is not None:
            os.utime(temporary, ns=(time, time))


def _try_lock(descriptor: int, kind: int) -> bool:
    """Return whether the lock was acquired; it always is on a file system without locks."""
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
