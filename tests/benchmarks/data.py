"""Images a second and core of reading and augmentation: `python -m tests.benchmarks.data [experiments/speed/data.md]`.

Contenders read the same JPEGs of 683x512 with their masks, and take turns at all of them, in one process; the time that
they keep a core busy is counted. Masks are gray, like ADE20K's, or have a palette, like PASCAL VOC's. The photographs
are CamVid's where FASTFCN_SHARED is set, else noise with structure at all scales. The published code goes on to
normalised floats in its workers, where ours sends 8 bits to the device: both are measured with that and without. With
REFERENCE=<a checkout of wuhuikai/FastFCN> its own class runs, too, and is what others are compared with. With a file,
its section is written.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms

from fastfcn_pl.config import build
from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.data.cache import CachedSource
from fastfcn_pl.data.dataset import SegmentationDataset
from fastfcn_pl.data.io.image_files import FileSource
from fastfcn_pl.data.io.palette import voc_colors
from tests.benchmarks.report import report

SIZE, CLASSES = (683, 512), 12
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
LIBRARIES = ("opencv-python-headless", "imagecodecs", "pillow", "numpy")
Pairs = list[tuple[Path, Path]]
Contender = Callable[[int, int], Any]
"""Reads and augments image `index` in epoch `epoch`."""


FLOATS = ", to normalised floats"
NOTE = """JPEGs of 683x512 and their masks, read and augmented with the paper's crop of 480, in one process that takes
turns at all of them; seconds of the processor are counted, medians of epochs. The published code sends normalised
floats from its workers; ours sends 8 bits, which the device normalises."""


def photographs(folder: Path, count: int) -> dict[str, Pairs]:
    """Write `count` JPEGs with their masks, and return them by the kind of mask."""
    pairs: dict[str, Pairs] = {"gray": [], "palette": []}
    for number, (image, mask) in zip(range(count), _pictures(), strict=False):
        image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
        mask = mask.resize(SIZE, Image.Resampling.NEAREST)
        for kind, of_kind in pairs.items():
            of_kind.append((folder / f"{number}.jpg", folder / f"{number}_{kind}.png"))
            if kind == "palette":
                mask.putpalette([value for color in voc_colors(range(256)) for value in color])
            mask.save(of_kind[-1][1])
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


def normalised(contender: Contender) -> Contender:
    """Go on to what the published workers send, normalised floats and labels of 64 bits, with our module's formula."""
    mean, std = (torch.tensor(value).view(3, 1, 1) * 255 for value in (MEAN, STD))

    def augment(epoch: int, index: int) -> Any:
        sample = contender(epoch, index)
        return sample["image"].float().sub_(mean).div_(std), sample["target"].long()

    return augment


def pillow(pairs: Pairs) -> Contender:
    """Return the paper's augmentation as its authors order it: all of the image is resized, padded, then cropped."""
    paper = build.compose(["data=ade20k", "data/augmentation=paper"]).data.augmentation
    crop, (low, high) = paper.crop_size, (int(paper.base_size * factor) for factor in paper.scale)

    def augment(epoch: int, index: int) -> Any:
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


def published(pairs: Pairs, checkout: Path, to_tensor: bool) -> Contender:
    """Return what the published class does with an image and its mask, without what it imports beside.

    With `to_tensor` it goes on as its training does in its workers, to normalised floats.
    """
    dataset = published_class(checkout)(None, "train")
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def augment(epoch: int, index: int) -> Any:
        image, mask = (Image.open(path) for path in pairs[index])
        image, mask = dataset._sync_transform(image.convert("RGB"), mask)
        return finish(image) if to_tensor else image, mask

    return augment


def published_class(checkout: Path) -> type:
    """Return `BaseDataset` out of a checkout of the published code."""
    file = checkout / "encoding" / "datasets" / "base.py"
    if not file.is_file():
        raise SystemExit(f"{file} is missing: REFERENCE wants a checkout of wuhuikai/FastFCN")
    spec = importlib.util.spec_from_file_location("published_base", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BaseDataset


def measure(contenders: dict[str, Contender], count: int, epochs: int) -> dict[str, float]:
    """Return images a second of each: medians over the epochs, after one to warm up.

    An epoch is a contender's own, as in a worker: after another's image, nothing of its own is in the core's caches.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for epoch in range(epochs + 1):
        for name, contender in contenders.items():
            start = time.process_time()
            for index in range(count):
                contender(epoch, index)
            if epoch:
                seconds[name].append(time.process_time() - start)
    return {name: count / median(of) for name, of in seconds.items()}


def main(file: str | None = None, count: int = 24, epochs: int = 9) -> str:
    """Measure, print the table, and write it into `file`."""
    torch.set_num_threads(1)
    random.seed(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, pairs in photographs(Path(folder), count).items():
            found = measure(_contenders(pairs, Path(folder, "cache")), len(pairs), epochs)
            bases = [name for name in found if name.startswith("published")] or list(found)[:1]
            for name, rate in found.items():
                rows.append([name, kind, f"{rate:.0f}", *(f"{rate / found[base]:.2f}" for base in bases)])
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    text = markdown_table(["", "masks", "images/s and core", *(f"times {base}" for base in bases)], rows)
    command = "REFERENCE=<checkout> FASTFCN_SHARED=<data> python -m tests.benchmarks.data"
    report(file, "Reading and augmentation", command, f"{NOTE}\n\n{text}\n\n{versions}")
    return text


def _contenders(pairs: Pairs, cache: Path) -> dict[str, Contender]:
    found = {"Pillow, in the published order": pillow(pairs)}
    if "REFERENCE" in os.environ:
        checkout = Path(os.environ["REFERENCE"])
        found["published class"] = published(pairs, checkout, to_tensor=False)
        found["published class" + FLOATS] = published(pairs, checkout, to_tensor=True)
    found |= {f"ours, data/augmentation={name}": ours(pairs, name) for name in ("paper", "mmseg")}
    found["ours, data/augmentation=paper" + FLOATS] = normalised(ours(pairs, "paper"))
    found["ours, paper, data.loader.cache"] = ours(pairs, "paper", cache)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:2])
