"""Pairing of image files with mask files, by name in two folders or by a list."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath

from fastfcn_pl.core.types import UserError, listed
from fastfcn_pl.data.io.name_lists import read_lines
from fastfcn_pl.data.io.walk import is_hidden, walk

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
BAND_EXTENSIONS = (*EXTENSIONS, ".npy")
"""Those of images with any number of bands."""

Pairs = list[tuple[Path, Path]]
FilesByKey = dict[str, Path]
"""Files by pairing key: the path in the folder without extension and suffix, in composed form (NFC)."""
_FIELD = re.compile(r"""(?:^|(?<=[ \t]))(?:"([^"]*)"|'([^']*)')(?=[ \t]|$)|([^ \t]+)""")
"""A name in a line, in quotes or up to the next space."""
_QUOTED = re.compile(r"""^(["'])(.*)\1$""")


def pair_folders(images: Path, masks: Path, mask_suffix: str, extensions: Sequence[str] = EXTENSIONS) -> Pairs:
    """Pair images with masks of the same relative path, apart from the extension and a `mask_suffix` after the name.

    Subfolders and links are followed; hidden files are skipped. Raises UserError if a file has no partner.
    """
    image_files, mask_files = _files_by_key(images, masks, mask_suffix, extensions)
    sides = ((image_files, mask_files, "mask", masks), (mask_files, image_files, "image", images))
    for files, partners, missing, folder in sides:
        if unpaired := {key: path for key, path in files.items() if key not in partners}:
            hint = _case_hint(unpaired, partners)
            raise UserError(
                f"{listed([*unpaired.values()], 3)} has no {missing} of the same name in {folder}{hint}: add it, "
                f"remove the file, or change data.mask_suffix='{mask_suffix}'"
            )
    return [(path, mask_files[key]) for key, path in image_files.items()]


def pair_list(
    listing: Path, root: Path, images: Path, masks: Path, mask_suffix: str, extensions: Sequence[str] = EXTENSIONS
) -> Pairs:
    """Return the pairs in a text file: on each line one name in `images`, or an image and its mask below `root`.

    A tab separates image and mask. So does a space outside quotes, unless the whole line is the name of an image.
    Raises UserError for a line whose files are missing.
    """
    lines = read_lines(listing, "name another in data.splits")
    files = functools.cache(lambda: _files_by_key(images, masks, mask_suffix, extensions))
    pairs = []
    for number, line in enumerate(lines, start=1):
        if line:
            try:
                pairs.append(_parse_line(line, root, images, masks, mask_suffix, files))
            except UserError as error:
                raise UserError(f"{listing}, line {number}: {error}") from None
    return pairs


def stack_folders(pairs: Pairs, images: Path, others: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Return pairs, each followed by the files of the same name in `others`, whose bands follow those of the image.

    Raises UserError if a folder has no such file.
    """
    folders = [(folder, _list_files(folder, BAND_EXTENSIONS)) for folder in others]
    stacked = []
    for image, mask in pairs:
        if not image.is_relative_to(images):
            raise UserError(f"{image} is not in {images}, so its file in {listed(others)} is unknown: list names only")
        key = _without_extension(image.relative_to(images))
        for folder, files in folders:
            if key not in files:
                raise UserError(f"{image} has no file of the same name in {folder}: add it, or remove the image")
        stacked.append((image, mask, *(files[key] for _, files in folders)))
    return stacked


def _parse_line(
    line: str,
    root: Path,
    images: Path,
    masks: Path,
    mask_suffix: str,
    files: Callable[[], tuple[FilesByKey, FilesByKey]],
) -> tuple[Path, Path]:
    """Return the image and the mask that a line names."""
    fields = _split_fields(line)
    if len(fields) == 1:
        return _pair_by_name(fields[0], root, images, masks, mask_suffix, files())
    if len(fields) == 2 and all(map(os.path.isfile, paths := [_resolve(root, field) for field in fields])):
        return paths[0], paths[1]
    if "\t" not in line and os.path.isdir(images) and os.path.isdir(masks):
        key = _key(line, root, images)  # the whole line as one name with spaces
        if all(key in side for side in files()):
            return files()[0][key], files()[1][key]
    if len(fields) == 2:
        missing = next(path for path in paths if not os.path.isfile(path))
        raise UserError(f"{missing} is missing: restore it, or remove the line")
    if "\t" not in line and len(splits := _split_at_spaces(line, root)) == 1:
        return splits[0]
    raise UserError(
        f"no image of {images} has the name '{line[:80]}': give one name, or an image and its mask, not {len(fields)} "
        "files (a tab separates names with spaces)"
    )


def _split_fields(line: str) -> list[str]:
    """Return the names in a line, separated by tabs if there are any, else by spaces outside quotes."""
    if "\t" in line:
        parts = (_QUOTED.sub(r"\2", field.strip(" ")) for field in line.split("\t"))
        return [part for part in parts if part]
    return [double or single or plain for double, single, plain in _FIELD.findall(line)]


def _split_at_spaces(line: str, root: Path) -> Pairs:
    """Return the ways to split a line at a space into two existing files."""
    halves = [(line[: match.start()], line[match.end() :]) for match in re.finditer(r" +", line)]
    pairs = [(_resolve(root, image), _resolve(root, mask)) for image, mask in halves[:50]]
    return [(image, mask) for image, mask in pairs if os.path.isfile(image) and os.path.isfile(mask)]


def _pair_by_name(
    name: str, root: Path, images: Path, masks: Path, mask_suffix: str, files: tuple[FilesByKey, FilesByKey]
) -> tuple[Path, Path]:
    key, (image_files, mask_files) = _key(name, root, images), files
    for folder, side, suffix in ((images, image_files, ""), (masks, mask_files, mask_suffix)):
        if key not in side:
            raise UserError(f"{folder} has no {key}{suffix}{_case_hint([key], side)}: restore it, or remove the line")
    return image_files[key], mask_files[key]


def _key(name: str, root: Path, images: Path) -> str:
    """Return the pairing key of an image that a list names by its path in `images` or below `root`."""
    path = _resolve(root, name)
    inner = path.relative_to(images) if path.is_relative_to(images) else PurePath(name.replace("\\", "/").lstrip("/"))
    return _without_extension(inner)


def _resolve(root: Path, name: str) -> Path:
    """Return the file that a list names: below `root`, with or without a leading slash, or else anywhere.

    Folders may be separated by backslashes, and accents need not be composed as on the disk.
    """
    below = name.lstrip("/\\")
    spellings = [below, below.replace("\\", "/")]
    spellings += [unicodedata.normalize(form, text) for text in spellings for form in ("NFC", "NFD")]
    paths = [root / spelling for spelling in dict.fromkeys(spellings)]
    return next((path for path in [*paths, Path(name)] if os.path.isfile(path)), paths[0])


def _case_hint(keys: Iterable[str], files: FilesByKey) -> str:
    """Return a hint for a message if one of `keys` differs from one of `files` only in case."""
    folded = {key.casefold(): path for key, path in files.items()}
    similar = next((folded[key.casefold()] for key in keys if key.casefold() in folded), None)
    return "" if similar is None else f" ({similar} differs in upper and lower case)"


def _files_by_key(
    images: Path, masks: Path, mask_suffix: str, extensions: Sequence[str]
) -> tuple[FilesByKey, FilesByKey]:
    """Return the images and the masks in two folders, which may be the same, by pairing key."""
    mask_files = _list_files(masks, EXTENSIONS, mask_suffix)
    mask_paths = set(mask_files.values())
    return {key: path for key, path in _list_files(images, extensions).items() if path not in mask_paths}, mask_files


def _list_files(folder: Path, extensions: Sequence[str], suffix: str = "") -> FilesByKey:
    """Return the image files in `folder` and below whose key ends in `suffix`, sorted by path."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder: create it, or name another in data.splits")
    files: FilesByKey = {}
    suffix = unicodedata.normalize("NFC", suffix)
    for path in sorted(walk(folder, extensions)):
        if not (key := _without_extension(path.relative_to(folder))).endswith(suffix):
            continue
        key = key.removesuffix(suffix)
        if key in files:
            raise UserError(f"{files[key]} and {path} have the same name: rename one, and its mask")
        files[key] = path
    if not files:
        ending = f" whose name ends in {suffix}" if suffix else ""
        raise UserError(
            f"{folder} has no image file{ending} ({listed(extensions)}): name another folder in data.splits"
        )
    return files


def _without_extension(path: PurePath) -> str:
    """Return a path without its image extension, with accents composed (NFC); macOS decomposes them (NFD)."""
    text = (path.with_suffix("") if path.suffix.lower() in BAND_EXTENSIONS else path).as_posix()
    return unicodedata.normalize("NFC", text)


def glob_visible(folder: Path, pattern: str) -> list[Path]:
    """Return the paths that match a pattern in `folder`, sorted, without hidden files such as those of macOS."""
    paths = (path for path in folder.glob(pattern) if not any(map(is_hidden, path.relative_to(folder).parts)))
    return sorted(paths, key=str)


def missing_files(paths: list[str]) -> list[str]:
    """Return the missing ones of `paths`, by listing each folder once, which is faster than a call for each file."""
    folders = [folder for folder in set(map(os.path.dirname, paths)) if os.path.isdir(folder)]
    try:
        existing = {os.path.join(folder, name) for folder in folders for name in os.listdir(folder)}
    except OSError as error:
        raise UserError(f"{error.filename} cannot be listed ({error.strerror}): change its permissions") from error
    return [path for path in paths if path not in existing]
