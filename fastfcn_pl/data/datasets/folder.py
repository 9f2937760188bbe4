"""User data without code: image and mask files in folders or lists, described in YAML."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastfcn_pl.core.types import DatasetSpec, UserError, listed, suggest
from fastfcn_pl.data.class_check import BINARY_REMAP, has_binary_masks, require_two_classes
from fastfcn_pl.data.dataset import Transform
from fastfcn_pl.data.file_datamodule import FileDataModule
from fastfcn_pl.data.folder_options import bands_of, check_splits, check_types, expand, is_name
from fastfcn_pl.data.io.band_files import BandSource, stored_size
from fastfcn_pl.data.io.image_files import ColorReader, FileSource, MaskReader, image_size, read_ids
from fastfcn_pl.data.io.label_ids import remap_key
from fastfcn_pl.data.io.pairs import BAND_EXTENSIONS, EXTENSIONS, pair_folders, pair_list, stack_folders
from fastfcn_pl.data.io.palette import voc_colors
from fastfcn_pl.data.io.pixel_limit import memory
from fastfcn_pl.data.loader_options import AUTOMATIC, Loading
from fastfcn_pl.data.samplers import UNIFORM, Sampling

_LARGE = 178_956_970
"""Pixels that Pillow takes without asking: a file of more may be made to exhaust the memory."""


class Folder(FileDataModule):
    """Images and masks below `root`, paired as `splits` says; images are rotated by their EXIF orientation.

    A split has a folder of `images` and one of `masks`. A mask has the relative path of its image, apart from the
    extension and a `mask_suffix` after the name. If a split has a `list`, each line of this text file names an image
    of the folder, or an image and its mask by their paths below `root`.

    `masks` is the content of mask files. With `ids`, `remap` maps an id, or a range of them such as "26000-26999", to a
    class index, or to 255 to ignore it. If it is null, ids are class indices. With `colors`, `palette` has the colour
    of each class, and `remap` may map other colours (0xRRGGBB) to a class or to 255. `class_weights` are for losses
    that take those of the data set.

    Images are RGB of 8 bits. With `bands` they are these bands of the files, as float32, normalised by `mean` and
    `std`. Then `images` of a split may be several folders, and `bands` a list for each, whose bands are stacked.
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
        splits: dict[str, dict[str, str | list[str] | None] | None],
        train_split: str,
        batch_size: int,
        num_workers: int | None,
        augmentation: Transform,
        loader: Loading = AUTOMATIC,
        sampler: Sampling = UNIFORM,
        class_weights: list[float] | None = None,  # missing in checkpoints written before this option existed
        max_pixels: int | None = None,  # missing in checkpoints written before this option existed
        bands: list[Any] | None = None,  # likewise, as the following ones
        mean: list[float] | None = None,
        std: list[float] | None = None,
        display_bands: list[int] | None = None,
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
        if not is_name(name):
            raise UserError(f"data.name={name!r}: give a text, in quotes if YAML reads it as something else")
        if not isinstance(mask_suffix, str):
            raise UserError(f"data.mask_suffix={mask_suffix}: give the text after the image name in mask names, or ''")
        ids: dict[int, int] | None = expand(remap)
        check_types(classes, palette, ids)
        check_splits(splits)
        self.spec, self.read_mask = _spec_and_reader(name, classes, palette, ids, masks)
        if (chosen := bands_of(bands, mean, std, display_bands)) is not None:
            self.spec = replace(self.spec, bands=chosen)
            if chosen.mean and chosen.std and hasattr(augmentation, "for_bands"):
                self.augmentation = augmentation.for_bands(chosen)
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
        if not self._checked:
            if self.spec.bands is not None:
                _ = self.spec.bands.statistics
                self._check_bands()
            if self.max_pixels is not None:
                self.notes += self._memory_note()
        while self.notes:
            warnings.warn(self.notes.pop(), stacklevel=2)
        super().prepare_data()

    def _check_bands(self) -> None:
        """Raise UserError if the first image of val is unusable, or has other bands than that of training."""
        train, val = (self.source(split) for split in (self.train_split, "val"))
        if isinstance(train, BandSource) and isinstance(val, BandSource) and len(train) and len(val):
            replace(val, reference=train.images(0)).image(0)

    def _memory_note(self) -> list[str]:
        """Return a line about the largest image if it is above Pillow's limit."""
        bands = self.spec.bands
        read_size = image_size if bands is None else stored_size
        images = {pair[0] for split in (self.train_split, "val") for pair in self.files(split)}
        sizes = {image: read_size(image, upright=True, max_pixels=self.max_pixels) for image in sorted(images)}
        largest = max(sizes, key=lambda image: math.prod(sizes[image]), default=None)
        if largest is None or math.prod(sizes[largest]) <= _LARGE:
            return []
        (width, height), pixels = sizes[largest], math.prod(sizes[largest])
        return [
            f"the largest image, {largest}, has {width}x{height} pixels: reading it takes at least "
            f"{memory(pixels * (bands.count if bands else 1))} in each of data.num_workers, besides what the network "
            "needs for it"
        ]

    @property
    def split_names(self) -> list[str]:
        return [split for split, paths in self.splits.items() if paths]

    def reader(self, pairs: Sequence[tuple[Path, ...]]) -> FileSource:
        if self.spec.bands is None:
            return FileSource(pairs, self.read_mask, upright=True, max_pixels=self.max_pixels)
        source = BandSource(pairs, self.read_mask, True, self.max_pixels, self.spec.bands.files)
        return replace(source, reference=source.images(0)) if pairs else source

    def pairs(self, split: str) -> Sequence[tuple[Path, ...]]:
        if split not in self.split_names:
            raise UserError(
                f"{self.spec.name} has no split {split}, only {listed(self.split_names)}: set data.splits.{split}"
            )
        given = {key: path for key, path in (self.splits[split] or {}).items() if path is not None}
        folders = given.pop("images", None) or []
        paths = [self.root / path for path in ([folders] if isinstance(folders, str) else folders)]
        images, others = (paths[0] if paths else None), paths[1:]
        bands = self.spec.bands
        if bands is not None and len(others) + 1 != len(bands.files):
            raise UserError(
                f"data.bands has bands of {len(bands.files)} files, but data.splits.{split}.images names "
                f"{len(others) + 1} folders: give a list of bands for each folder, such as [[0, 1, 2], [0]]"
            )
        if others and bands is None:
            raise UserError(f"data.splits.{split}.images names several folders: set data.bands, a list for each folder")
        masks = self.root / str(given["masks"]) if "masks" in given else None
        extensions = EXTENSIONS if bands is None else BAND_EXTENSIONS
        if "list" in given:
            listing, images, masks = self.root / str(given["list"]), images or self.root, masks or self.root
            pairs = pair_list(listing, self.root, images, masks, self.mask_suffix, extensions)
        elif images is None or masks is None:
            key = "images" if images is None else "masks"
            raise UserError(f"data.splits.{split}.{key} is not set: give a folder below data.root, or a list")
        else:
            pairs = pair_folders(images, masks, self.mask_suffix, extensions)
        return stack_folders(pairs, images, others) if others else pairs


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
