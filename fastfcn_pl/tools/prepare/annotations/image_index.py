"""Image files of a folder, found by the names that annotation files give them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import takewhile
from pathlib import Path, PurePath

from fastfcn_pl.core.types import UserError, listed
from fastfcn_pl.data.io.find_images import FolderTest
from fastfcn_pl.data.io.pairs import EXTENSIONS
from fastfcn_pl.data.io.walk import walk

_ELSEWHERE = re.compile(r"^([A-Za-z]:)?/|^[a-z0-9+]+://", re.IGNORECASE)
"""Start of an absolute path or an address, which is valid on another machine."""
_UNLISTABLE = re.compile(r"[\t\r\n\udc80-\udcff]|^[ \"']|[ \"']$")
"""Mark of a path that the list of a split cannot hold."""
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""Digits that Label Studio puts before the name of an uploaded file."""
_CITYSCAPES = "_leftImg8bit"
"""End of the name of an image of Cityscapes, which that of its polygons lacks."""


class ImageIndex:
    """Images below `root`, without the folders that `skip` names and the files in `masks`."""

    def __init__(self, root: Path, skip: FolderTest, masks: Collection[Path] = ()) -> None:
        self.root = root
        self._by_path: dict[str, Path] = {}
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in walk(root, EXTENSIONS, skip=skip):
            if path not in masks:
                key = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
                self._by_path[key] = path
                for name in {PurePath(key).name, PurePath(key).stem}:
                    self._by_name[name].append(key)

    def find(self, name: object, origin: Path) -> Path:
        """Return the image that the annotation file `origin` names, with or without its extension.

        A name is a path from the folder of `origin` or from the root. Otherwise the image counts whose path has the
        most folders in common with it, such as the only one of this file name. Raises UserError if there is no image.
        """
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{origin} gives no name of an image, but {name!r}: add it, or export it again")
        path = unicodedata.normalize("NFC", name.replace("\\", "/"))
        elsewhere = bool(_ELSEWHERE.match(path))
        near = origin.parent.relative_to(self.root)
        spellings = [] if elsewhere else [os.path.normpath(near / path), os.path.normpath(path)]
        if not elsewhere and all(spelling.split("/")[0] == ".." for spelling in spellings):
            raise UserError(
                f"{origin} names the image {name!r} outside data.root={self.root}: move it there, or set data.root to "
                "the folder that contains both"
            )
        if match := next((self._by_path[key] for key in spellings if key in self._by_path), None):
            return self._listable(match)
        return self._listable(self._similar(name, path, near, origin))

    def _similar(self, name: str, path: str, near: PurePath, origin: Path) -> Path:
        file = PurePath(path).name
        spellings = (file, _UPLOAD.sub("", file), file + _CITYSCAPES)
        keys = next((self._by_name[spelling] for spelling in spellings if spelling in self._by_name), None)
        if keys is None:
            raise UserError(
                f"{origin} names the image {name!r}, which is not in {self.root}: add it, or take it out of the file"
            )

        def score(key: str) -> tuple[int, int]:
            parts = PurePath(key).parts
            return _common(parts[-2::-1], PurePath(path).parts[-2::-1]), _common(parts, near.parts)

        best = max(map(score, keys))
        chosen = [key for key in keys if score(key) == best]
        if len(chosen) > 1:
            raise UserError(
                f"{origin} names the image {name!r}, which may be {listed(chosen, 3)}: give its path in the file, or "
                "prepare the folders one by one"
            )
        return self._by_path[chosen[0]]

    def _listable(self, path: Path) -> Path:
        relative = path.relative_to(self.root).as_posix()
        if _UNLISTABLE.search(relative):
            raise UserError(f"{relative!a} has a tab, a line break, a quote at its end or no UTF-8 name: rename it")
        return path


def _common(parts: Sequence[str], others: Sequence[str]) -> int:
    """Return the number of equal parts at the start of two paths."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parts, others, strict=False)))
