"""Values that YAML sets for `data=folder`; each raises UserError if it is of another kind."""

from __future__ import annotations

import re
from typing import Any

from fastfcn_pl.core.types import Bands, UserError, listed, suggest

SPLITS = ("train", "val", "test")
KEYS = ("images", "masks", "list")
_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})")
_LONGEST_RANGE = 1 << 16


def bands_of(bands: Any, mean: Any, std: Any, display_bands: Any) -> Bands | None:
    """Return the bands that the keys `data.bands`, `.mean`, `.std` and `.display_bands` describe; None for RGB.

    Bands are a list, or a list for each of the files that make an image. Without `display_bands`, pictures show the
    first three bands, or the first one in grey. Raises UserError for values of another kind.
    """
    others = {"mean": mean, "std": std, "display_bands": display_bands}
    if bands is None:
        if given := [name for name, values in others.items() if values is not None]:
            raise UserError(
                f"data.{given[0]} is for data.bands: set them, too, or remove it (images are RGB of 8 bits)"
            )
        return None
    for name, values in {"bands": bands, **others}.items():
        if values is not None and not isinstance(values, list):
            raise UserError(f"data.{name}={values}: give a list, or null")
    of_files = bands if bands and isinstance(bands[0], list) else [bands]
    if not all(isinstance(file, list) for file in of_files):
        raise UserError(f"data.bands={bands}: give one list of bands, or one for each of several folders of images")
    files = tuple(map(tuple, of_files))
    count = sum(map(len, files))
    display = display_bands or ([0, 1, 2] if count >= 3 else [0])
    return Bands(files, tuple(display), tuple(mean or ()), tuple(std or ()))


def expand(remap: Any) -> Any:
    """Return a remap in which each id of a range such as "26000-26999" has a key of its own."""
    if not isinstance(remap, dict):
        return remap
    expanded: dict[Any, Any] = {}
    for key, label in remap.items():
        match = _RANGE.fullmatch(key) if isinstance(key, str) else None
        ids = range(int(match[1]), int(match[2]) + 1) if match else (key,)
        if match and not 0 < len(ids) <= _LONGEST_RANGE:
            raise UserError(f"data.remap: {key} is a range of {len(ids)} ids: give 1 to {_LONGEST_RANGE}, lowest first")
        if repeated := expanded.keys() & set(ids):
            raise UserError(f"data.remap: {key} contains {min(repeated)}, which another key has, too: remove one")
        expanded |= dict.fromkeys(ids, label)
    return expanded


def check_types(classes: Any, palette: Any, remap: Any) -> None:
    """Raise UserError for values of the wrong type; `DatasetSpec` checks the values themselves."""
    if not isinstance(classes, list) or not all(map(is_name, classes)):
        raise UserError(f"data.classes={classes}: give a list of names, in quotes if YAML reads one as something else")
    if palette is not None and not (isinstance(palette, list) and all(map(_is_color, palette))):
        raise UserError(f"data.palette={palette}: give [red, green, blue], 0 to 255, for each class, or null")
    if remap is not None and not (isinstance(remap, dict) and all(map(_is_id, [*remap, *remap.values()]))):
        raise UserError(f"data.remap={remap}: map the ids in the files to class indices, all integers, or give null")


def is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(x) is int and 0 <= x <= 255 for x in value)


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**31


def check_splits(splits: Any) -> None:
    """Raise UserError for an unknown key or a value that is not a path."""
    if not isinstance(splits, dict):
        raise UserError(f"data.splits={splits}: give {listed(SPLITS)}, each with {listed(KEYS)}, or null")
    for split, paths in splits.items():
        if split not in SPLITS:
            raise UserError(f"data.splits.{split}: no such split; {suggest(str(split), SPLITS)}")
        if paths is not None and not isinstance(paths, dict):
            raise UserError(f"data.splits.{split}={paths}: give {listed(KEYS)}, or null")
        for key, path in (paths or {}).items():
            if key not in KEYS:
                raise UserError(f"data.splits.{split}.{key}: no such key; {suggest(str(key), KEYS)}")
            folders = isinstance(path, list) and key == "images" and path and all(isinstance(x, str) for x in path)
            if path is not None and not isinstance(path, str) and not folders:
                raise UserError(f"data.splits.{split}.{key}={path}: give a path below data.root, in quotes, or null")
