"""Reading every image and label map of a data set once, and counting what is in them; what is wrong is collected."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError
from fastfcn_pl.data.class_check import ignored_by_default
from fastfcn_pl.data.io.image_files import FileSource
from fastfcn_pl.data.io.label_ids import look_up, unknown_ids
from fastfcn_pl.data.io.parallel import parallel_map

if TYPE_CHECKING:
    from fastfcn_pl.data.datamodule import SegmentationDataModule
    from fastfcn_pl.data.dataset import Source

_CHUNK = 8
"""Images that travel to a process together."""


@dataclass
class Tally:
    """What is counted in a split, or in a part of it; classes by index, ignored pixels under `IGNORE`."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Images by width and height."""
    levels: np.ndarray = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    """Pixels by channel and value."""
    pixels: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    """Images in which a class occurs."""
    unknown: Counter[int] = field(default_factory=Counter)
    """Pixels by ids that the data set does not have."""
    blank: list[str] = field(default_factory=list)
    """Label maps that ignore every pixel."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """What cannot be trained on: its kind and the line that training would end with."""
    names: dict[bytes, str] = field(default_factory=dict)
    """Images by what their pixels hash to."""
    twins: list[tuple[str, str]] = field(default_factory=list)
    """Images of equal pixels."""

    def add(self, other: Tally) -> None:
        """Add what was counted in another part."""
        for mine, its in ((getattr(self, name), getattr(other, name)) for name in vars(self)):
            if isinstance(mine, list):
                mine.extend(its)
            elif isinstance(mine, Counter):
                mine.update(its)
        self.levels += other.levels
        for digest, name in other.names.items():
            self._remember(digest, name)

    def look_at(self, source: Source, index: int, spec: DatasetSpec, labelled: bool) -> None:
        """Read a pair and count it; where there is a fault, what can be read is counted still."""
        image, ids = self._read(source, index, labelled)
        if image is not None:
            self.sizes[image.shape[1], image.shape[0]] += 1
            self.levels += [np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)]
            digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=str(image.shape).encode()).digest()
            self._remember(digest, str([*source.files(index), source.name(index)][0]))
        if ids is not None:
            self._count(ids, source.name(index), spec)

    def _read(self, source: Source, index: int, labelled: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
        if not isinstance(source, FileSource):
            return self._tried("pair", source.read, index) or (None, None)
        image = self._tried("image", source.image, index)
        ids = self._tried("mask", source.ids, index) if labelled else None
        if image is not None and ids is not None:
            self._tried("size", source.check_sizes, index, image, ids)
        return image, ids

    def _tried(self, kind: str, function: Callable, *arguments: object):  # type: ignore[no-untyped-def]
        try:
            return function(*arguments)
        except UserError as error:
            self.faults.append((kind, str(error)))

    def _count(self, ids: np.ndarray, name: str, spec: DatasetSpec) -> None:
        found, counts = np.unique(ids, return_counts=True) if ids.dtype != np.uint8 else _bytes(ids)
        labels = look_up(found, spec.labels)
        pixels: Counter[int] = Counter()
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
            pixels[label] += count
        if pixels.pop(-1, 0):
            wrong = labels < 0
            self.unknown.update(dict(zip(found[wrong].tolist(), counts[wrong].tolist(), strict=True)))
            self.faults.append(("ids", str(unknown_ids(name, found[wrong].tolist(), spec, found.tolist()))))
        elif set(pixels) == {IGNORE}:
            self.blank.append(name)
        self.pixels.update(pixels)
        self.images.update(pixels.keys())

    def _remember(self, digest: bytes, name: str) -> None:
        if digest in self.names:
            self.twins.append((self.names[digest], name))
        else:
            self.names[digest] = name


@dataclass
class Split:
    """What a split lists, and what was counted in what was read of it; `absent` says why there is none."""

    labelled: bool
    listed: int = 0
    read: int = 0
    tally: Tally = field(default_factory=Tally)
    absent: str | None = None
    ignored_by_default: bool = False
    """True if 255 is ignored because nothing else is said of it."""


def inspect(
    data: SegmentationDataModule, limit: int | None, num_workers: int | None, update: Callable[[int, int | None], None]
) -> dict[str, Split]:
    """Read the splits of `data`, of each at most `limit` images, spread evenly; `update` hears of the progress."""
    splits: dict[str, Split] = {}
    tasks: list[tuple[str, Source, np.ndarray]] = []
    for name in dict.fromkeys([*data.split_names, *trained(data)]):
        split = splits[name] = Split(labelled=name not in data.unlabelled)
        try:
            source = data.listing(name)
        except UserError as error:
            split.absent = str(error)
            continue
        split.listed, split.ignored_by_default = len(source), ignored_by_default(source, data.spec)
        split.read = min(split.listed, limit or split.listed)
        chosen = np.linspace(0, split.listed, split.read, endpoint=False).astype(int)
        tasks += [(name, source, chosen[i : i + _CHUNK]) for i in range(0, split.read, _CHUNK)]
    done, total = 0, sum(split.read for split in splits.values())
    update(done, total)
    parts = (_part(source, indices, splits[name].labelled) for name, source, indices in tasks)
    for (name, _, indices), tally in zip(
        tasks, parallel_map(partial(_examine, data.spec), parts, num_workers), strict=True
    ):
        splits[name].tally.add(tally)
        update(done := done + len(indices), total)
    return splits


def trained(data: SegmentationDataModule) -> tuple[str, ...]:
    """Return the splits that training reads."""
    return ("train", "val") if data.train_split == "trainval" else (data.train_split,)


def _part(source: Source, indices: np.ndarray, labelled: bool) -> tuple[Source, list[int], bool]:
    """Return what a process needs to read some pairs of a source: not the list of all."""
    if isinstance(source, FileSource):
        return replace(source, pairs=[source.pairs[i] for i in indices]), [*range(len(indices))], labelled
    return source, indices.tolist(), labelled


def _examine(spec: DatasetSpec, part: tuple[Source, list[int], bool]) -> Tally:
    source, indices, labelled = part
    tally = Tally()
    for index in indices:
        tally.look_at(source, index, spec, labelled)
    return tally


def _bytes(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of 8 bits that occur, and how often: faster than sorting them."""
    counts = np.bincount(ids.ravel(), minlength=256)
    found = np.flatnonzero(counts)
    return found, counts[found]
