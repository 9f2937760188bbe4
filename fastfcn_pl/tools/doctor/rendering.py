"""Output of `doctor`: tables for a terminal of 80 columns, plain containers for JSON, and a picture."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.console import Console
from rich.table import Table

from fastfcn_pl.core.redaction import hide
from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.data.dataset import SegmentationDataset
from fastfcn_pl.evaluation.visualize import displayed, legend, overlay, stack
from fastfcn_pl.tools.doctor.findings import Finding
from fastfcn_pl.tools.doctor.statistics import Moments, Split, Tally, joined, trained

_TILE, _LINE = 360, 18
_MAX_LINES = 10
"""Findings of one kind that are printed."""


def to_dict(data: SegmentationDataModule, splits: dict[str, Split], found: list[Finding]) -> dict[str, Any]:
    """Return the inspection as plain containers; sizes are width and height, `_mean_std` has their units."""
    wrong = any(finding.level == "fault" for finding in found)
    return {
        "data": data.spec.name,
        "root": hide(str(getattr(data, "root", ""))) or None,
        "train_split": data.train_split,
        "verdict": "wrong" if wrong else "ok",
        "splits": {name: _split(data, name, split) for name, split in splits.items()},
        "findings": [{k: hide(v) if isinstance(v, str) else v for k, v in vars(finding).items()} for finding in found],
    }


def _split(data: SegmentationDataModule, name: str, split: Split) -> dict[str, Any]:
    tally, classes = split.tally, data.spec.classes
    mean, std = _mean_std(tally)
    return {
        "absent": split.absent,
        "labelled": split.labelled,
        "listed": split.listed,
        "read": split.read,
        "official": data.split_sizes.get(name),
        "sizes": dict(zip(("smallest", "median", "largest"), _sizes(tally), strict=False)),
        "mean": mean,
        "std": std,
        "pixels": {label: tally.pixels[c] for c, label in enumerate(classes)},
        "share": dict(zip(classes, _shares(tally, data.spec), strict=True)),
        "images": {label: tally.images[c] for c, label in enumerate(classes)},
        "ignored": tally.pixels[IGNORE],
        "unknown": {str(number): count for number, count in sorted(tally.unknown.items())},
    }


def _sizes(tally: Tally) -> list[tuple[int, int]]:
    """Return the smallest, the median and the largest size by area."""
    if not tally.sizes:
        return []
    by_area = sorted(tally.sizes, key=lambda size: (size[0] * size[1], size))
    cumulative = np.cumsum([tally.sizes[size] for size in by_area])
    middle = int(np.searchsorted(cumulative, cumulative[-1] / 2))
    return [by_area[0], by_area[middle], by_area[-1]]


def _mean_std(tally: Tally) -> tuple[list[float] | None, list[float] | None]:
    """Return mean and std of each channel: of RGB from 0 to 1, of bands in the units of the files."""
    if tally.moments is not None:
        return tally.moments.mean.tolist(), tally.moments.std.tolist()
    pixels = tally.levels.sum(axis=1)
    if not pixels.all():
        return None, None
    values = np.arange(256) / 255
    mean = tally.levels @ values / pixels
    return mean.tolist(), np.sqrt((tally.levels @ values**2 / pixels - mean**2).clip(min=0)).tolist()


def _shares(tally: Tally, spec: DatasetSpec) -> list[float]:
    """Return each class's share of the pixels that are not ignored."""
    counts = [tally.pixels[c] for c in range(spec.num_classes)]
    return [count / max(sum(counts), 1) for count in counts]


def show(data: SegmentationDataModule, splits: dict[str, Split], found: list[Finding]) -> None:
    """Print the tables, and the findings one a line."""
    console = Console()
    console.print(_splits_table(data, splits))
    if counted := {name: split for name, split in splits.items() if split.labelled and split.read}:
        console.print(_classes_table(data, counted))
    for name, split in splits.items():
        mean, std = _mean_std(split.tally)
        if mean and std and split.labelled and data.spec.bands is None:
            print(f"{name}: mean {_numbers(mean)}, std {_numbers(std)} of RGB from 0 to 1")
    if measured := _moments(data, splits):
        print(f"of the bands of {data.train_split}, for the YAML file of the data set:")
        print(f"mean: {_listed(measured.mean)}\nstd: {_listed(measured.std)}")
    kinds = dict.fromkeys((finding.level, finding.kind) for finding in found)
    for level, kind in kinds:
        lines = [finding.message for finding in found if (finding.level, finding.kind) == (level, kind)]
        for line in lines[:_MAX_LINES]:
            print(f"{level}: {line}")
        if len(lines) > _MAX_LINES:
            print(f"{level}: {len(lines) - _MAX_LINES} more like this ({kind}): doctor.json has them all")


def _splits_table(data: SegmentationDataModule, splits: dict[str, Split]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"{data.spec.name}, width x height by area", title_justify="left")
    for column in ("split", "pairs", "official", "smallest", "median", "largest", "ignored"):
        table.add_column(column, justify="left" if column == "split" else "right", no_wrap=True)
    for name, split in splits.items():
        pairs = f"{split.listed:,}" if split.read == split.listed else f"{split.read:,} of {split.listed:,}"
        official = data.split_sizes.get(name)
        equal = " =" if official == split.listed else ""
        ignored, total = split.tally.pixels[IGNORE], sum(split.tally.pixels.values())
        table.add_row(
            name,
            "absent" if split.absent else pairs,
            "" if official is None else f"{official:,}{equal}",
            *([f"{w}x{h}" for w, h in _sizes(split.tally)] or ("", "", "")),
            f"{ignored / total:.1%}" if total else "",
        )
    return table


def _classes_table(data: SegmentationDataModule, splits: dict[str, Split]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="pixels, their share and the images that have them", title_justify="left")
    table.add_column("class", overflow="fold")
    for name in splits:
        for column in (name, "share", "images"):
            table.add_column(column, justify="right", no_wrap=True)
    shares = {name: _shares(split.tally, data.spec) for name, split in splits.items()}
    for c, label in enumerate(data.spec.classes):
        cells = []
        for name, split in splits.items():
            occurs = split.tally.pixels[c] > 0
            cells += [_short(split.tally.pixels[c]), f"{shares[name][c]:.2%}" if occurs else "-"]
            cells += [f"{split.tally.images[c]}" if occurs else "-"]
        table.add_row(label, *cells)
    return table


def _short(count: int) -> str:
    """Return a number with at most three digits: 999, 12k, 3.4M, 56G."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}" if count < 10 * size else f"{count / size:.0f}{unit}"
    return str(count) if count else "-"


def _listed(values: np.ndarray) -> str:
    """Return numbers as YAML takes them, with six digits."""
    return f"[{', '.join(f'{value:.6g}' for value in values)}]"


def _moments(data: SegmentationDataModule, splits: dict[str, Split]) -> Moments | None:
    """Return mean and variance of the bands of all training images; None for RGB, or if none could be read."""
    parts = (splits[name].tally.moments for name in trained(data) if name in splits)
    return functools.reduce(joined, parts, None)


def _displayable(data: SegmentationDataModule, splits: dict[str, Split]) -> DatasetSpec:
    """Return the classes and bands of a data set, with the statistics that were measured if it has none."""
    bands, measured = data.spec.bands, _moments(data, splits)
    if bands is None or measured is None or (bands.mean and bands.std):
        return data.spec
    std = np.where(measured.std > 0, measured.std, 1)
    return replace(data.spec, bands=replace(bands, mean=tuple(measured.mean.tolist()), std=tuple(std.tolist())))


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def picture(data: SegmentationDataModule, splits: dict[str, Split], count: int, seed: int) -> np.ndarray | None:
    """Return `count` random readable samples beside their overlays, above a legend; None if there are none."""
    candidates = [(name, i) for name, split in splits.items() if split.labelled for i in range(split.listed)]
    order = np.random.default_rng(seed).permutation(len(candidates))
    tiles: list[np.ndarray] = []
    seen: set[int] = set()
    listing, spec = functools.cache(data.listing), _displayable(data, splits)
    for name, index in (candidates[i] for i in order[: 4 * count]):  # some may be unreadable
        source = listing(name)
        try:
            image, ids = source.read(index)
            labels = SegmentationDataset(source, data.spec).relabel(ids, index)
        except UserError:
            continue
        seen |= {int(c) for c in np.unique(labels) if c != IGNORE}
        tiles.append(_tile(displayed(image, spec), labels, spec, f"{name}: {source.name(index)[-90:]}"))
        if len(tiles) == count:
            break
    return stack([*tiles, legend(sorted(seen), data.spec, 2 * _TILE)]) if tiles else None


def _tile(pixels: np.ndarray, labels: np.ndarray, spec: DatasetSpec, title: str) -> np.ndarray:
    """Return image and overlay side by side, below a title."""
    size = _TILE, max(1, round(pixels.shape[0] * _TILE / pixels.shape[1]))
    small = np.asarray(Image.fromarray(pixels).resize(size))
    canvas = Image.new("RGB", (2 * _TILE, _LINE + size[1]), "white")
    ImageDraw.Draw(canvas).text((2, 2), title, "black", ImageFont.load_default(12))
    nearest = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    canvas.paste(Image.fromarray(small), (0, _LINE))
    canvas.paste(Image.fromarray(overlay(small, nearest, spec)), (_TILE, _LINE))
    return np.asarray(canvas)
