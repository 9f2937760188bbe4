"""Find the files that a user's `input` names: a file, a folder or a glob."""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.pairs import BAND_EXTENSIONS, EXTENSIONS
from fastfcn_pl.data.io.walk import is_hidden, non_file_kind, walk

FolderTest = Callable[[Path], bool]


def print_note(line: str) -> None:
    """Print to stderr what is skipped, and why; print nothing if stderr is closed."""
    if sys.stderr is not None:
        print(f"note: {line}", file=sys.stderr)


def find_images(
    source: str, other_suffixes: Collection[str] = (), skip: FolderTest = lambda folder: False
) -> tuple[Path, list[Path]]:
    """Return the files that `source` names, in order, and the folder to which their names are relative.

    An existing path is that file or folder, whatever its name; anything else is a glob. A folder yields its images and
    the files with one of `other_suffixes`, or its NumPy arrays if there are none, without the subfolders for which
    `skip` is true. Hidden files are found only if `source` spells them out. Raises UserError if there is no file.
    """
    path = Path(source)
    if os.path.isdir(source):
        find = functools.partial(walk, path, skip=skip, warn=print_note)
        base, files = path, list(find({*EXTENSIONS, *other_suffixes})) or list(find({*BAND_EXTENSIONS}))
    elif os.path.lexists(source):
        if kind := non_file_kind(path):
            raise UserError(f"input={source} is {kind}, not a file: give an image, a video, or a folder of them")
        base, files = path.parent, [path]
    else:
        base, files = _expand_glob(path, skip, literal=True)
        if not files:
            base, files = _expand_glob(path, skip, literal=False)
    if not files:
        raise UserError(f"input={source}: no image found; give an image, a video, a folder or a glob in quotes")
    return base, files


def _expand_glob(pattern: Path, skip: FolderTest, literal: bool) -> tuple[Path, list[Path]]:
    """Return the files that a glob matches, and the folder before its first wildcard.

    If `literal`, a part of the pattern that is the name of an existing folder stands for it, despite its wildcards.
    """
    base, *rest = Path(), *pattern.parts
    while len(rest) > 1 and (name := _plain_name(rest[0], base, literal)) is not None:
        base, rest = base / name, rest[1:]
    if ".." in rest:
        raise UserError(f"input={pattern}: .. after a wildcard is not supported: leave it out")
    files = []
    names = glob.glob(os.path.join(glob.escape(str(base)), *rest), recursive=True)
    for match in sorted(map(Path, set(names))):
        inner = match.relative_to(base)
        folders = [base / parent for parent in inner.parents]
        hidden = [part for part in inner.parts if is_hidden(part) and not _asks_for(part, rest)]
        loops = len(set(map(os.path.realpath, folders))) < len(folders)
        kind = non_file_kind(match)
        if not os.path.lexists(match) or hidden or loops or any(map(skip, folders[:-1])):
            continue
        if kind is None:
            files.append(match)
        elif match.suffix.lower() in EXTENSIONS or not os.path.isdir(match):
            print_note(f"{match} is {kind}, not a file: it is skipped")
    return base, files


def _plain_name(part: str, base: Path, literal: bool) -> str | None:
    """Return the folder name that a part of a glob stands for; None for a wildcard."""
    escaped = re.sub(r"\[([*?[])\]", "", part)  # as glob.escape writes a character
    if literal and os.path.isdir(base / part):
        return part
    return None if glob.has_magic(escaped) else re.sub(r"\[([*?[])\]", r"\1", part)


def _asks_for(hidden: str, parts: list[str]) -> bool:
    """Return whether a part of a glob asks for the `hidden` name, as `.*` does."""
    return any(is_hidden(part) and fnmatch.fnmatchcase(hidden, part) for part in parts)
