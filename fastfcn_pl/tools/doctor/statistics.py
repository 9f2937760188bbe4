"""Inspection of a data set: read every image and label map once, count pixels and collect faults."""

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
from fastfcn_pl.data.io.label_ids import count_ids, look_up, unknown_ids
from fastfcn_pl.data.io.parallel import parallel_map

if TYPE_CHECKING:
    from fastfcn_pl.data.datamodule import SegmentationDataModule
    from fastfcn_pl.data.dataset import Source

_CHUNK = 8
"""Images that are sent to a process together."""


@dataclass(frozen=True)
class Moments:
    """Number of pixels, mean and variance of each channel, in float64."""

    count: int
    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray) -> Moments:
        pixels = image.reshape(-1, image.shape[2]).astype(np.float64)
        return cls(len(pixels), pixels.mean(0), pixels.var(0))

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.variance)


def joined(first: Moments | None, second: Moments | None) -> Moments | None:
    """Return the moments of all pixels of both (Chan, Golub and LeVeque 1979); None stands for no pixels."""
    if first is None or second is None:
        return first or second
    count = first.count + second.count
    share, difference = second.count / count, second.mean - first.mean
    within = (1 - share) * first.variance + share * second.variance
    return Moments(count, first.mean + share * difference, within + share * (1 - share) * difference**2)


@dataclass
class Tally:
    """Counts over a split or a part of it; classes by index, ignored pixels under `IGNORE`."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Number of images by width and height."""
    levels: np.ndarray = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    """Number of pixels by channel and value, of RGB images."""
    moments: Moments | None = None
    """Of the bands of other images."""
    pixels: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    """Number of images in which a class occurs."""
    unknown: Counter[int] = field(default_factory=Counter)
    """Number of pixels by unknown id."""
    blank: list[str] = field(default_factory=list)
    """Label maps in which every pixel is ignored."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Unusable files: the kind of fault and the error message of training."""
    names: dict[bytes, str] = field(default_factory=dict)
    """Images by the hash of their pixels."""
    twins: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of images with equal pixels."""

    def add(self, other: Tally) -> None:
        """Add the counts of another part."""
        for own, added in ((getattr(self, name), getattr(other, name)) for name in vars(self)):
            if isinstance(own, list):
                own.extend(added)
            elif isinstance(own, Counter):
                own.update(added)
        self.levels += other.levels
        self.moments = joined(self.moments, other.moments)
        for digest, name in other.names.items():
            self._add_name(digest, name)

    def inspect(self, source: Source, index: int, spec: DatasetSpec, labelled: bool) -> None:
        """Read and count a pair; if one of its files is faulty, count the other one."""
        image, ids = self._read(source, index, labelled)
        if image is not None:
            self.sizes[image.shape[1], image.shape[0]] += 1
            if spec.bands is None:
                self.levels += [np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)]
            else:
                self.moments = joined(self.moments, Moments.of(image))
            digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=str(image.shape).encode()).digest()
            self._add_name(digest, str([*source.files(index), source.name(index)][0]))
        if ids is not None:
            self._count(ids, source.name(index), spec)

    def _read(self, source: Source, index: int, labelled: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
        if not isinstance(source, FileSource):
            return self._try("pair", source.read, index) or (None, None)
        image = self._try("image", source.image, index)
        ids = self._try("mask", source.ids, index) if labelled else None
        if image is not None and ids is not None:
            self._try("size", source.check_sizes, index, image, ids)
        return image, ids

    def _try(self, kind: str, function: Callable, *arguments: object):  # type: ignore[no-untyped-def]
        try:
            return function(*arguments)
        except UserError as error:
            self.faults.append((kind, str(error)))

    def _count(self, ids: np.ndarray, name: str, spec: DatasetSpec) -> None:
        values, counts = count_ids(ids)
        labels = look_up(values, spec.labels)
        pixels: Counter[int] = Counter()
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
            pixels[label] += count
        if pixels.pop(-1, 0):
            unknown = labels < 0
            self.unknown.update(dict(zip(values[unknown].tolist(), counts[unknown].tolist(), strict=True)))
            self.faults.append(("ids", str(unknown_ids(name, values[unknown].tolist(), spec, values.tolist()))))
        elif set(pixels) == {IGNORE}:
            self.blank.append(name)
        self.pixels.update(pixels)
        self.images.update(pixels.keys())

    def _add_name(self, digest: bytes, name: str) -> None:
        if digest in self.names:
            self.twins.append((self.names[digest], name))
        else:
            self.names[digest] = name


@dataclass
class Split:
    """Numbers of listed and read pairs of a split, and its counts; `absent` says why it is missing."""

    labelled: bool
    listed: int = 0
    read: int = 0
    tally: Tally = field(default_factory=Tally)
    absent: str | None = None
    ignored_by_default: bool = False
    """True if 255 is ignored only because neither masks nor remap say otherwise."""


def inspect(
    data: SegmentationDataModule, limit: int | None, num_workers: int | None, update: Callable[[int, int | None], None]
) -> dict[str, Split]:
    """Inspect at most `limit` evenly spread images of each split of `data`; `update` receives the progress."""
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
    """Return a source with the pairs of `indices` only, so that little is sent to a process."""
    if isinstance(source, FileSource):
        return replace(source, pairs=[source.pairs[i] for i in indices]), [*range(len(indices))], labelled
    return source, indices.tolist(), labelled


def _examine(spec: DatasetSpec, part: tuple[Source, list[int], bool]) -> Tally:
    source, indices, labelled = part
    tally = Tally()
    for index in indices:
        tally.inspect(source, index, spec, labelled)
    return tally
