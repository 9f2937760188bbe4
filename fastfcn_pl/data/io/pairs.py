"""Which image file belongs to which mask file: by their names in two folders, or as a list says."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath

from fastfcn_pl.core.types import UserError, listed
from fastfcn_pl.data.io.name_lists import lines
from fastfcn_pl.data.io.walk import is_hidden, walk

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")

Pairs = list[tuple[Path, Path]]
Named = dict[str, Path]
"""Files by what pairs them: their path in a folder without extension and suffix, composed (NFC)."""
_FIELD = re.compile(r"""(?:^|(?<=[ \t]))(?:"([^"]*)"|'([^']*)')(?=[ \t]|$)|([^ \t]+)""")
"""A name in a line: in quotes, which may hold spaces, or up to the next space."""
_QUOTED = re.compile(r"""^(["'])(.*)\1$""")


def in_folders(images: Path, masks: Path, mask_suffix: str) -> Pairs:
    """Pair each image with the mask of its path, but for the extension and a `mask_suffix` behind the name.

    Subfolders are searched, also those behind links; hidden files are passed over. Raises UserError where a partner is
    missing.
    """
    by_image, by_mask = _by_name(images, masks, mask_suffix)
    for files, others, what, folder in ((by_image, by_mask, "mask", masks), (by_mask, by_image, "image", images)):
        if alone := {name: path for name, path in files.items() if name not in others}:
            hint = _in_other_case(alone, others)
            raise UserError(
                f"{listed([*alone.values()], 3)} has no {what} of that name in {folder}{hint}: add it, take the file "
                f"away, or set data.mask_suffix, which is '{mask_suffix}'"
            )
    return [(path, by_mask[name]) for name, path in by_image.items()]


def in_list(listing: Path, root: Path, images: Path, masks: Path, mask_suffix: str) -> Pairs:
    """Return the pairs that a text file names, each on a line: by one name in `images`, or image and mask below `root`.

    A tab parts the two of a pair; so do spaces, where they are not in quotes and the line is no name by itself. Raises
    UserError for a line whose files are not there.
    """
    rows = lines(listing, "name another in data.splits")
    by_name = functools.cache(lambda: _by_name(images, masks, mask_suffix))
    found = []
    for number, row in enumerate(rows, start=1):
        if row:
            try:
                found.append(_pair(row, root, images, masks, mask_suffix, by_name))
            except UserError as error:
                raise UserError(f"{listing}, line {number}: {error}") from None
    return found


def _pair(
    row: str, root: Path, images: Path, masks: Path, mask_suffix: str, by_name: Callable[[], tuple[Named, Named]]
) -> tuple[Path, Path]:
    """Return the image and the mask that a line names."""
    fields = _fields(row)
    if len(fields) == 1:
        return _by_one_name(fields[0], root, images, masks, mask_suffix, by_name())
    if len(fields) == 2 and all(map(os.path.isfile, paths := [_below(root, field) for field in fields])):
        return paths[0], paths[1]
    if "\t" not in row and os.path.isdir(images) and os.path.isdir(masks):
        name = _key(row, root, images)  # one name with spaces
        if all(name in files for files in by_name()):
            return by_name()[0][name], by_name()[1][name]
    if len(fields) == 2:
        missing = next(path for path in paths if not os.path.isfile(path))
        raise UserError(f"{missing} is missing: restore it, or take the line out")
    if "\t" not in row and len(splits := _splits(row, root)) == 1:
        return splits[0]
    raise UserError(
        f"no image of {images} has the name '{row[:80]}': give one name, or an image and its mask, not {len(fields)} "
        "files (a tab parts names that hold spaces)"
    )


def _fields(row: str) -> list[str]:
    """Return the names in a line: parted by tabs if there are any, else by spaces outside of quotes."""
    if "\t" in row:
        parts = (_QUOTED.sub(r"\2", field.strip(" ")) for field in row.split("\t"))
        return [part for part in parts if part]
    return [double or single or plain for double, single, plain in _FIELD.findall(row)]


def _splits(row: str, root: Path) -> Pairs:
    """Return the ways to part a line at a space into two files that are there."""
    halves = [(row[: match.start()], row[match.end() :]) for match in re.finditer(r" +", row)]
    pairs = [(_below(root, image), _below(root, mask)) for image, mask in halves[:50]]
    return [(image, mask) for image, mask in pairs if os.path.isfile(image) and os.path.isfile(mask)]


def _by_one_name(
    field: str, root: Path, images: Path, masks: Path, mask_suffix: str, by_name: tuple[Named, Named]
) -> tuple[Path, Path]:
    name, (by_image, by_mask) = _key(field, root, images), by_name
    for folder, files, suffix in ((images, by_image, ""), (masks, by_mask, mask_suffix)):
        if name not in files:
            hint = _in_other_case([name], files)
            raise UserError(f"{folder} holds no {name}{suffix}{hint}: restore it, or take the line out")
    return by_image[name], by_mask[name]


def _key(field: str, root: Path, images: Path) -> str:
    """Return what pairs the image that a list names, by its path in the folder `images` or below `root`."""
    path = _below(root, field)
    inner = path.relative_to(images) if path.is_relative_to(images) else PurePath(field.replace("\\", "/").lstrip("/"))
    return _name(inner)


def _below(root: Path, name: str) -> Path:
    """Return the file that a list names: below `root`, also behind a leading slash, or else anywhere.

    Folders may be parted by backslashes, and accents be composed or not, whatever they are on the disk.
    """
    below = name.lstrip("/\\")
    spellings = [below, below.replace("\\", "/")]
    spellings += [unicodedata.normalize(form, text) for text in spellings for form in ("NFC", "NFD")]
    paths = [root / spelling for spelling in dict.fromkeys(spellings)]
    return next((path for path in [*paths, Path(name)] if os.path.isfile(path)), paths[0])


def _in_other_case(names: Iterable[str], files: Named) -> str:
    """Return what to add to a message where a name differs from one of `files` in upper and lower case only."""
    folded = {name.casefold(): path for name, path in files.items()}
    near = next((folded[name.casefold()] for name in names if name.casefold() in folded), None)
    return "" if near is None else f" ({near} differs in upper and lower case)"


def _by_name(images: Path, masks: Path, mask_suffix: str) -> tuple[Named, Named]:
    """Return the images and the masks in two folders, which may be one, by what pairs them."""
    by_mask = _files(masks, mask_suffix)
    ours = set(by_mask.values())
    return {name: path for name, path in _files(images).items() if path not in ours}, by_mask


def _files(folder: Path, suffix: str = "") -> Named:
    """Return the image files in `folder` and below, in order."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder: make it, or name another in data.splits")
    found: Named = {}
    suffix = unicodedata.normalize("NFC", suffix)
    for path in sorted(walk(folder, EXTENSIONS)):
        if not (name := _name(path.relative_to(folder))).endswith(suffix):
            continue
        name = name.removesuffix(suffix)
        if name in found:
            raise UserError(f"{found[name]} and {path} have one name: rename one, and its mask")
        found[name] = path
    if not found:
        ending = f" whose name ends in {suffix}" if suffix else ""
        raise UserError(
            f"{folder} holds no file{ending} of a known kind ({listed(EXTENSIONS)}): name another in data.splits"
        )
    return found


def _name(path: PurePath) -> str:
    """Return a path without the extension of an image; macOS decomposes (NFD) accents that others compose (NFC)."""
    text = (path.with_suffix("") if path.suffix.lower() in EXTENSIONS else path).as_posix()
    return unicodedata.normalize("NFC", text)


def visible(folder: Path, pattern: str) -> list[Path]:
    """Return what a pattern finds in `folder`, in order, without hidden files, such as those of macOS."""
    found = (path for path in folder.glob(pattern) if not any(map(is_hidden, path.relative_to(folder).parts)))
    return sorted(found, key=str)


def missing_files(paths: list[str]) -> list[str]:
    """Return the paths that are not there, from one look into each folder: asking for every file may take minutes."""
    folders = [folder for folder in set(map(os.path.dirname, paths)) if os.path.isdir(folder)]
    try:
        there = {os.path.join(folder, name) for folder in folders for name in os.listdir(folder)}
    except OSError as error:
        raise UserError(f"{error.filename} cannot be listed ({error.strerror}): change its permissions") from error
    return [path for path in paths if path not in there]
