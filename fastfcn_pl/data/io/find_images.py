"""Find the files that a user's `input` names: a file, a folder, or a glob."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.pairs import EXTENSIONS
from fastfcn_pl.data.io.walk import is_hidden, strangeness, walk

Test = Callable[[Path], bool]


def say(line: str) -> None:
    """Print what is left out, and why; on no other stream where stderr is closed."""
    if sys.stderr is not None:
        print(f"note: {line}", file=sys.stderr)


def found_images(
    source: str, others: Collection[str] = (), without: Test = lambda folder: False
) -> tuple[Path, list[Path]]:
    """Return the files that `source` names, in order, and the folder below which their names are told.

    A path that exists is that file or folder, whatever its name; anything else is a glob. In a folder, images are
    taken, and files with a suffix of `others`. Hidden files are taken where `source` spells them out, the subfolders
    for which `without` is true are not looked into, what is no file is left out. Raises UserError if nothing is left.
    """
    path = Path(source)
    if os.path.isdir(source):
        base, found = path, list(walk(path, {*EXTENSIONS, *others}, without=without, say=say))
    elif os.path.lexists(source):
        if strange := strangeness(path):
            raise UserError(f"input={source} is {strange}, not a file: give an image, a video, or a folder of them")
        base, found = path.parent, [path]
    else:
        base, found = _matches(path, without, literal=True)
        if not found:
            base, found = _matches(path, without, literal=False)
    if not found:
        raise UserError(f"input={source}: no image there; give an image, a video, a folder of them or a glob in quotes")
    return base, found


def _matches(pattern: Path, without: Test, literal: bool) -> tuple[Path, list[Path]]:
    """Return the files that a glob matches, and the folder before its first wildcard.

    If `literal`, a folder whose name holds brackets, or `*`, is that folder.
    """
    base, *rest = Path(), *pattern.parts
    while len(rest) > 1 and (name := _plain(rest[0], base, literal)) is not None:
        base, rest = base / name, rest[1:]
    if ".." in rest:
        raise UserError(f"input={pattern}: .. behind a wildcard names no folder: leave it out")
    found = []
    names = glob.glob(os.path.join(glob.escape(str(base)), *rest), recursive=True)
    for match in sorted(map(Path, set(names))):
        inner = match.relative_to(base)
        folders = [base / parent for parent in inner.parents]
        hidden = [part for part in inner.parts if is_hidden(part) and not _spelled(part, rest)]
        loops = len(set(map(os.path.realpath, folders))) < len(folders)
        strange = strangeness(match)
        if not os.path.lexists(match) or hidden or loops or any(map(without, folders[:-1])):
            continue
        if strange is None:
            found.append(match)
        elif match.suffix.lower() in EXTENSIONS or not os.path.isdir(match):
            say(f"{match} is {strange}, not a file: it is left out")
    return base, found


def _plain(part: str, base: Path, literal: bool) -> str | None:
    """Return the name of the one folder that a part of a glob stands for, or None for a wildcard."""
    escaped = re.sub(r"\[([*?[])\]", "", part)  # as glob.escape writes a character
    if literal and os.path.isdir(base / part):
        return part
    return None if glob.has_magic(escaped) else re.sub(r"\[([*?[])\]", r"\1", part)


def _spelled(name: str, parts: list[str]) -> bool:
    """Tell whether one of the parts of a glob asks for a hidden `name`, as `.*` does."""
    return any(is_hidden(part) and fnmatch.fnmatchcase(name, part) for part in parts)
