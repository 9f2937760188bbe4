"""User data without code: image and mask files in folders or lists, described in YAML."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace
from typing import Any

from fastfcn_pl.core.types import DatasetSpec, UserError, listed, suggest
from fastfcn_pl.data.class_check import BINARY_REMAP, has_binary_masks, require_two_classes
from fastfcn_pl.data.dataset import Transform
from fastfcn_pl.data.file_datamodule import FileDataModule
from fastfcn_pl.data.io.image_files import ColorReader, FileSource, MaskReader, image_size, memory, read_ids
from fastfcn_pl.data.io.label_ids import remap_key
from fastfcn_pl.data.io.pairs import Pairs, pair_folders, pair_list
from fastfcn_pl.data.io.palette import voc_colors
from fastfcn_pl.data.loader_options import AUTOMATIC, Loading
from fastfcn_pl.data.samplers import UNIFORM, Sampling

SPLITS = ("train", "val", "test")
KEYS = ("images", "masks", "list")
_LARGE = 178_956_970
"""Pixels that Pillow takes without asking: a file of more may be made to exhaust the memory."""
_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})")
_LONGEST_RANGE = 1 << 16


class Folder(FileDataModule):
    """Images and masks below `root`, paired as `splits` says; images are rotated by their EXIF orientation.

    A split has a folder of `images` and one of `masks`. A mask has the relative path of its image, apart from the
    extension and a `mask_suffix` after the name. If a split has a `list`, each line of this text file names an image
    of the folder, or an image and its mask by their paths below `root`.

    `masks` is the content of mask files. With `ids`, `remap` maps an id, or a range of them such as "26000-26999", to a
    class index, or to 255 to ignore it. If it is null, ids are class indices. With `colors`, `palette` has the colour
    of each class, and `remap` may map other colours (0xRRGGBB) to a class or to 255. `class_weights` are for losses
    that take those of the data set.
    """

    how_to_get = (
        "give the folder of your images and masks, or make masks of the files that an annotation tool exports with "
        "python -m fastfcn_pl.prepare data=folder data.root=<dir>"
    )

    def __init__(
        self,
        seed: int,
        *,
        root: str,
        name: str,
        classes: list[str],
        palette: list[list[int]] | None,
        remap: dict[int | str, int] | None,
        masks: str,
        mask_suffix: str,
        splits: dict[str, dict[str, str | None] | None],
        train_split: str,
        batch_size: int,
        num_workers: int | None,
        augmentation: Transform,
        loader: Loading = AUTOMATIC,
        sampler: Sampling = UNIFORM,
        class_weights: list[float] | None = None,  # missing in checkpoints written before this option existed
        max_pixels: int | None = None,  # missing in checkpoints written before this option existed
    ) -> None:
        super().__init__(
            seed,
            root=root,
            train_split=train_split,
            batch_size=batch_size,
            num_workers=num_workers,
            augmentation=augmentation,
            loader=loader,
            sampler=sampler,
        )
        if not _is_name(name):
            raise UserError(f"data.name={name!r}: give a text, in quotes if YAML reads it as something else")
        if not isinstance(mask_suffix, str):
            raise UserError(f"data.mask_suffix={mask_suffix}: give the text after the image name in mask names, or ''")
        ids: dict[int, int] | None = _expand(remap)
        _check_types(classes, palette, ids)
        _check_splits(splits)
        self.spec, self.read_mask = _spec_and_reader(name, classes, palette, ids, masks)
        self.mask_suffix, self.splits, self.class_weights = mask_suffix, splits, class_weights
        if class_weights is not None and len(class_weights) != self.spec.num_classes:
            raise UserError(
                f"data.class_weights has {len(class_weights)} numbers for {self.spec.num_classes} classes: give one "
                "for each, or null"
            )
        if max_pixels is not None and max_pixels < 1:
            raise UserError(f"data.max_pixels={max_pixels}: give the largest number of pixels of an image, or null")
        self.max_pixels = max_pixels
        self.notes: list[str] = []
        if masks == "ids" and remap is None and len(classes) == 2 and self._has_binary_masks():
            self.spec = replace(self.spec, remap=BINARY_REMAP)
            self.notes.append(
                f"the masks of {name} hold only 0 and 255, so 255 is class {classes[1]}: state it with "
                f"'{remap_key(BINARY_REMAP)}', or ignore 255 with '{remap_key({0: 0, 1: 1, 255: 255})}'"
            )

    def _has_binary_masks(self) -> bool:
        try:
            return has_binary_masks(self.reader(self.files(self.train_split)))
        except UserError:  # reading the split reports it
            return False

    def prepare_data(self) -> None:
        if self.max_pixels is not None and not self._checked:
            self.notes += self._memory_note()
        while self.notes:
            warnings.warn(self.notes.pop(), stacklevel=2)
        super().prepare_data()

    def _memory_note(self) -> list[str]:
        """Return a line about the largest image if it is above Pillow's limit."""
        images = {image for split in (self.train_split, "val") for image, _ in self.files(split)}
        sizes = {image: image_size(image, upright=True, max_pixels=self.max_pixels) for image in sorted(images)}
        largest = max(sizes, key=lambda image: math.prod(sizes[image]), default=None)
        if largest is None or math.prod(sizes[largest]) <= _LARGE:
            return []
        (width, height), pixels = sizes[largest], math.prod(sizes[largest])
        return [
            f"the largest image, {largest}, has {width}x{height} pixels: reading it takes {memory(pixels)} in each "
            "of data.num_workers, besides what the network needs for it"
        ]

    @property
    def split_names(self) -> list[str]:
        return [split for split, paths in self.splits.items() if paths]

    def reader(self, pairs: Pairs) -> FileSource:
        return FileSource(pairs, self.read_mask, upright=True, max_pixels=self.max_pixels)

    def pairs(self, split: str) -> Pairs:
        if split not in self.split_names:
            raise UserError(
                f"{self.spec.name} has no split {split}, only {listed(self.split_names)}: set data.splits.{split}"
            )
        paths = {key: self.root / path for key, path in (self.splits[split] or {}).items() if path is not None}
        if "list" in paths:
            images, masks = paths.get("images", self.root), paths.get("masks", self.root)
            return pair_list(paths["list"], self.root, images, masks, self.mask_suffix)
        for key in ("images", "masks"):
            if key not in paths:
                raise UserError(f"data.splits.{split}.{key} is not set: give a folder below data.root, or a list")
        return pair_folders(paths["images"], paths["masks"], self.mask_suffix)


def _spec_and_reader(
    name: str, classes: list[str], palette: list[list[int]] | None, remap: dict[int, int] | None, masks: str
) -> tuple[DatasetSpec, MaskReader]:
    """Return the classes and the reader of their masks."""
    colors = [(r, g, b) for r, g, b in palette or []]
    display_colors = tuple(colors) if palette is not None else voc_colors(range(len(classes)))
    if masks == "ids":
        spec = DatasetSpec(name, tuple(classes), display_colors, remap or {})
        require_two_classes(spec)
        return spec, read_ids
    if masks != "colors":
        raise UserError(f"data.masks={masks}: no such kind of mask; {suggest(str(masks), ('ids', 'colors'))}")
    if not colors and not remap:
        raise UserError("data.masks=colors needs data.palette: give [red, green, blue] for each class")
    by_color = {r << 16 | g << 8 | b: index for index, (r, g, b) in enumerate(colors)}
    if len(by_color) < len(colors):
        raise UserError("data.palette repeats a colour: data.masks=colors needs a different one for each class")
    spec = DatasetSpec(name, tuple(classes), display_colors, {**by_color, **(remap or {})})
    require_two_classes(spec)
    return replace(spec, remap={}), ColorReader(spec.remap)


def _expand(remap: Any) -> Any:
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


def _check_types(classes: Any, palette: Any, remap: Any) -> None:
    """Raise UserError for values of the wrong type; `DatasetSpec` checks the values themselves."""
    if not isinstance(classes, list) or not all(map(_is_name, classes)):
        raise UserError(f"data.classes={classes}: give a list of names, in quotes if YAML reads one as something else")
    if palette is not None and not (isinstance(palette, list) and all(map(_is_color, palette))):
        raise UserError(f"data.palette={palette}: give [red, green, blue], 0 to 255, for each class, or null")
    if remap is not None and not (isinstance(remap, dict) and all(map(_is_id, [*remap, *remap.values()]))):
        raise UserError(f"data.remap={remap}: map the ids in the files to class indices, all integers, or give null")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(x) is int and 0 <= x <= 255 for x in value)


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**31


def _check_splits(splits: Any) -> None:
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
            if path is not None and not isinstance(path, str):
                raise UserError(f"data.splits.{split}.{key}={path}: give a path below data.root, in quotes, or null")
