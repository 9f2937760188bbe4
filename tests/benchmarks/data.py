"""Images a second and core of reading and augmentation: `python -m tests.benchmarks.data [experiments/speed.md]`.

Contenders read the same JPEGs of 683x512 with their masks, and take turns at each image, in one process and thread. The
photographs are CamVid's where FASTFCN_SHARED is set, else noise with structure at all scales. With
REFERENCE=<a checkout of wuhuikai/FastFCN> its own class runs, too. With a file, its section on this is written anew.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import ModuleType

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps

from fastfcn_pl import build
from fastfcn_pl.contracts import DatasetSpec
from fastfcn_pl.data.cache import CachedSource
from fastfcn_pl.data.dataset import SegmentationDataset
from fastfcn_pl.data.files import FileSource
from fastfcn_pl.data.palette import voc_colors
from tests.benchmarks.report import table, write

SIZE, CLASSES = (683, 512), 12
Pairs = list[tuple[Path, Path]]
Contender = Callable[[int, int], object]
"""Reads and augments image `index` in epoch `epoch`."""


def photographs(folder: Path, count: int) -> Pairs:
    """Write `count` JPEGs with their masks."""
    pairs = []
    for number, (image, mask) in zip(range(count), _pictures(), strict=False):
        pairs.append((folder / f"{number}.jpg", folder / f"{number}.png"))
        image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC).save(pairs[-1][0], quality=90)
        mask.resize(SIZE, Image.Resampling.NEAREST).save(pairs[-1][1])
    return pairs


def _pictures() -> Iterator[tuple[Image.Image, Image.Image]]:
    if "FASTFCN_SHARED" in os.environ:
        camvid = Path(os.environ["FASTFCN_SHARED"], "data", "CamVid")
        for path in sorted(camvid.glob("train/*.png")):
            yield Image.open(path), Image.open(camvid / "trainannot" / path.name)
        return
    rng = np.random.default_rng(0)
    while True:
        image = sum(_noise(rng, side) / weight for side, weight in ((4, 1), (16, 2), (64, 4), (256, 8)))
        yield (
            Image.fromarray((image * 130).clip(0, 255).astype(np.uint8)),
            Image.fromarray((_noise(rng, 6)[..., 0] * CLASSES).astype(np.uint8)),
        )


def _noise(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return smooth noise `(H, W, 3)`, 0 to 1, whose grains are `side` to a picture's side."""
    coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC)) / 256


def ours(pairs: Pairs, augmentation: str, cache: Path | None = None) -> Contender:
    """Read and augment as `data/augmentation=<augmentation>` trains, with `data.loader.cache=<cache>`."""
    node = build.compose(["data=ade20k", f"data/augmentation={augmentation}"]).data.augmentation
    spec = DatasetSpec("photographs", tuple(map(str, range(CLASSES))), voc_colors(range(CLASSES)))
    source = CachedSource(FileSource(pairs), cache) if cache else FileSource(pairs)
    dataset = SegmentationDataset(source, spec, build.build(node), seed=0)
    return lambda epoch, index: dataset[epoch, index]


def pillow(pairs: Pairs) -> Contender:
    """Return the paper's augmentation as its authors order it: all of the image is resized, padded, then cropped."""
    paper = build.compose(["data=ade20k", "data/augmentation=paper"]).data.augmentation
    crop, (low, high) = paper.crop_size, (int(paper.base_size * factor) for factor in paper.scale)

    def augment(epoch: int, index: int) -> object:
        image, mask = (Image.open(path) for path in pairs[index])
        image = image.convert("RGB")
        if random.random() < paper.flip_probability:
            image, mask = ImageOps.mirror(image), ImageOps.mirror(mask)
        short = random.randint(low, high)
        width, height = (int(side * short / min(image.size)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        mask = mask.resize((width, height), Image.Resampling.NEAREST)
        if short < crop:
            border = (0, 0, max(crop - width, 0), max(crop - height, 0))
            image, mask = ImageOps.expand(image, border, 0), ImageOps.expand(mask, border, 0)
        left, top = (random.randint(0, side - crop) for side in image.size)
        box = (left, top, left + crop, top + crop)
        image, mask = image.crop(box), mask.crop(box)
        if random.random() < paper.blur_probability:
            image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, paper.blur_radius)))
        return image, torch.from_numpy(np.array(mask)).long()

    return augment


def published(pairs: Pairs, checkout: Path) -> Contender:
    """Return what the published class does with an image and its mask, without what it imports beside."""
    dataset = _module(checkout / "encoding" / "datasets" / "base.py").BaseDataset(None, "train")

    def augment(epoch: int, index: int) -> object:
        image, mask = (Image.open(path) for path in pairs[index])
        return dataset._sync_transform(image.convert("RGB"), mask)

    return augment


def _module(file: Path) -> ModuleType:
    if not file.is_file():
        raise SystemExit(f"{file} is missing: REFERENCE wants a checkout of wuhuikai/FastFCN")
    spec = importlib.util.spec_from_file_location("published_base", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(contenders: dict[str, Contender], count: int, epochs: int) -> dict[str, float]:
    """Return images a second of each: medians over the epochs, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for epoch in range(epochs + 1):
        spent = dict.fromkeys(contenders, 0.0)
        for index in range(count):
            for name, contender in contenders.items():
                start = time.perf_counter()
                contender(epoch, index)
                spent[name] += time.perf_counter() - start
        for name in contenders if epoch else ():
            seconds[name].append(spent[name])
    return {name: count / median(of) for name, of in seconds.items()}


def main(file: str | None = None, count: int = 24, epochs: int = 9) -> str:
    """Measure, print the table, and write it into `file`."""
    torch.set_num_threads(1)
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        pairs = photographs(Path(folder), count)
        contenders = {"Pillow, in the published order": pillow(pairs)}
        if "REFERENCE" in os.environ:
            contenders["published class"] = published(pairs, Path(os.environ["REFERENCE"]))
        contenders |= {f"ours, data/augmentation={name}": ours(pairs, name) for name in ("paper", "mmseg")}
        contenders["ours, paper, data.loader.cache"] = ours(pairs, "paper", Path(folder, "cache"))
        found = measure(contenders, len(pairs), epochs)
    base = next(iter(found.values()))
    text = table(["", "images/s and core", "times"], [[k, f"{v:.0f}", f"{v / base:.2f}"] for k, v in found.items()])
    print(text)
    if file is not None:
        write(Path(file), "Reading and augmentation", "python -m tests.benchmarks.data", text)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:2])
