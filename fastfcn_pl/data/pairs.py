"""Which image file belongs to which mask file: by their names in two folders, or as a list says."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from fastfcn_pl.contracts import UserError, listed

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")

Pairs = list[tuple[Path, Path]]


def in_folders(images: Path, masks: Path, mask_suffix: str) -> Pairs:
    """Pair each image with the mask of its path, but for the extension and a `mask_suffix` behind the name.

    Subfolders are searched, hidden files are passed over. Raises UserError where a partner is missing.
    """
    by_image, by_mask = _by_name(images, masks, mask_suffix)
    for files, others, what, folder in ((by_image, by_mask, "mask", masks), (by_mask, by_image, "image", images)):
        if alone := [path for name, path in files.items() if name not in others]:
            raise UserError(
                f"{listed(alone, 3)} has no {what} of that name in {folder}: add it, take the file away, or set "
                f"data.mask_suffix, which is '{mask_suffix}'"
            )
    return [(path, by_mask[name]) for name, path in by_image.items()]


def in_list(listing: Path, root: Path, images: Path, masks: Path, mask_suffix: str) -> Pairs:
    """Return the pairs that a text file names, each on a line: by one name in `images`, or image and mask below `root`.

    Raises UserError for a line whose files are not there.
    """
    try:
        rows = [line.split() for line in listing.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{listing} cannot be read as a list ({error}): name another in data.splits") from None
    by_image, by_mask = _by_name(images, masks, mask_suffix) if any(len(row) == 1 for row in rows) else ({}, {})
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"{listing}, line {number}"
        if len(row) > 2:
            raise UserError(f"{where}: give one name, or an image and its mask, not {len(row)} files")
        if len(row) == 2:
            image, mask = root / row[0], root / row[1]
            if missing := [path for path in (image, mask) if not os.path.isfile(path)]:
                raise UserError(f"{where}: {missing[0]} is missing: restore it, or take the line out")
            found.append((image, mask))
        elif row:
            path = root / row[0]
            name = _name(path.relative_to(images) if path.is_relative_to(images) else PurePath(row[0]))
            for folder, files, suffix in ((images, by_image, ""), (masks, by_mask, mask_suffix)):
                if name not in files:
                    raise UserError(f"{where}: {folder} holds no {name}{suffix}: restore it, or take the line out")
            found.append((by_image[name], by_mask[name]))
    return found


def _by_name(images: Path, masks: Path, mask_suffix: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images and the masks in two folders, which may be one, by what pairs them."""
    by_mask = _files(masks, mask_suffix)
    ours = set(by_mask.values())
    return {name: path for name, path in _files(images).items() if path not in ours}, by_mask


def _files(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Return the image files in `folder` and below, by their paths in it without extension and `suffix`, in order."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder: make it, or name another in data.splits")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inner.parts)
        if hidden or path.suffix.lower() not in EXTENSIONS or not path.stem.endswith(suffix):
            continue
        name = _name(inner).removesuffix(suffix)
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
    """Return a path without the extension of an image."""
    return (path.with_suffix("") if path.suffix.lower() in EXTENSIONS else path).as_posix()
