"""Samples: read, checked, relabelled; random as a function of (seed, epoch, index) alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError
from fastfcn_pl.data.dataset import SegmentationDataset
from fastfcn_pl.data.datasets.camvid import CamVid
from fastfcn_pl.data.io.image_files import FileSource
from fastfcn_pl.data.io.label_ids import label_table
from fastfcn_pl.data.io.palette import voc_colors
from fastfcn_pl.data.samplers import BLANK, EvalSampler, TrainSampler
from fastfcn_pl.data.transforms.geometric import RandomScaleCrop
from tests.fakes.camvid import write_camvid

SPEC = DatasetSpec("two", ("a", "b"), ((0, 0, 0), (255, 0, 0)), {7: 0, 9: 1, 0: IGNORE})
CROP = RandomScaleCrop(
    base_size=None,
    scale=[0.5, 2],
    crop_size=32,
    rotation=0,
    flip_probability=0.5,
    blur_probability=0.5,
    blur_radius=1,
    fill=[0, 0, 0],
)


def _pair(folder: Path, mask: np.ndarray) -> FileSource:
    Image.new("RGB", mask.shape[::-1]).save(folder / "image.png")
    Image.fromarray(mask).save(folder / "mask.png")
    return FileSource([(folder / "image.png", folder / "mask.png")])


def test_ids_become_class_indices(tmp_path: Path) -> None:
    source = _pair(tmp_path, np.array([[7, 9, 0]], np.uint8))
    sample = SegmentationDataset(source, SPEC)[0, 0]
    assert sample["target"].tolist() == [[0, 1, IGNORE]]
    assert (sample["image"].shape, sample["image"].dtype) == ((3, 1, 3), torch.uint8)


def test_without_a_remap_255_is_ignored_and_unknown_ids_are_errors(tmp_path: Path) -> None:
    spec = DatasetSpec("two", SPEC.classes, SPEC.palette)
    assert SegmentationDataset(_pair(tmp_path, np.array([[0, 1, 255]], np.uint8)), spec)[0, 0]["target"].max() == IGNORE
    with pytest.raises(UserError, match=r"mask\.png has the id 2, 254, which two \(2 classes\) does not have"):
        SegmentationDataset(_pair(tmp_path, np.array([[254, 1, 2, 255]], np.uint8)), spec)[0, 0]


REMAPS = {
    "as they are": (21, {}),
    "from 1, 0 ignored": (150, {0: IGNORE, **{i + 1: i for i in range(150)}}),
    "from 1, no other": (2, {1: 0, 2: 1}),
    "turned round": (3, {0: 2, 1: 1, 2: 0}),
    "with gaps": (3, {0: 0, 7: 1, 9: 2, 255: IGNORE}),
    "the last is ignored": (11, {**{i: i for i in range(11)}, 11: IGNORE}),
    "as many as there may be": (255, {}),
    "one too few for all ids": (255, {i: i for i in range(255)}),
    "beyond 8 bits": (2, {300: 0, 301: 1}),
}


@pytest.mark.parametrize("name", REMAPS)
def test_every_8_bit_id_is_mapped_by_the_table_or_an_error(tmp_path: Path, name: str) -> None:
    classes, remap = REMAPS[name]
    spec = DatasetSpec("many", tuple(map(str, range(classes))), voc_colors(range(classes)), remap)
    dataset, table = SegmentationDataset(_pair(tmp_path, np.zeros((2, 2), np.uint8)), spec), label_table(spec)
    for number in range(256):
        ids = np.full((2, 3), number, np.uint8)
        if table[number] >= 0:
            assert (dataset.relabel(ids, 0) == table[number]).all()
        else:
            with pytest.raises(UserError, match=rf"mask\.png has the id {number}, which many \({classes} classes\)"):
                dataset.relabel(ids, 0)


def test_ids_of_16_bits_become_class_indices_or_are_named(tmp_path: Path) -> None:
    spec = DatasetSpec("two", SPEC.classes, SPEC.palette, {1000: 0, 2000: 1, 0: IGNORE})
    source = _pair(tmp_path, np.array([[1000, 2000, 0]], np.uint16))
    assert SegmentationDataset(source, spec)[0, 0]["target"].tolist() == [[0, 1, IGNORE]]
    source = _pair(tmp_path, np.arange(1000, 1100, dtype=np.uint16)[None])
    line = r"mask\.png has the id 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008 and 91 more, which two \(2 classes\)"
    with pytest.raises(UserError, match=line):
        SegmentationDataset(source, spec)[0, 0]


def _batches(root: Path, workers: int, epochs: int, size: int = 2) -> list[tuple[list[int], int]]:
    module = CamVid(5, root=str(root), train_split="train", batch_size=size, num_workers=workers, augmentation=CROP)
    loader = module.train_dataloader()
    found = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        found += [(batch["index"].tolist(), int(batch["image"].long().sum())) for batch in loader]
    return found


@pytest.mark.slow
def test_samples_depend_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    root = write_camvid(tmp_path, train=6)
    alone, shared = _batches(root, workers=0, epochs=2), _batches(root, workers=2, epochs=2)
    assert alone == shared
    assert alone[:3] != alone[3:]  # another epoch: another order, other crops


@pytest.mark.slow
def test_two_workers_and_two_epochs_crop_one_picture_differently_each_time(tmp_path: Path) -> None:
    root = write_camvid(tmp_path, train=1)
    (root / "train.txt").write_text((root / "train.txt").read_text() * 4)
    rows = _batches(root, workers=2, epochs=2, size=1)
    assert len({total for _, total in rows}) == 8
    assert rows == _batches(root, workers=2, epochs=2, size=1)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_an_epoch_without_overlap(world_size: int) -> None:
    samplers = [TrainSampler(10, seed=1, rank=r, world_size=world_size) for r in range(world_size)]
    parts = [[index for _, index in sampler] for sampler in samplers]
    assert {len(part) for part in parts} == {10 // world_size}
    assert len({index for part in parts for index in part}) == 10 // world_size * world_size


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
def test_evaluation_counts_every_image_once(world_size: int) -> None:
    drawn = [[index for _, index in EvalSampler(7, r, world_size)] for r in range(world_size)]
    assert all(drawn), "a rank without a batch would be left out of the loop"
    parts = [[index for index in part if index != BLANK] for part in drawn]
    assert sorted(index for part in parts for index in part) == list(range(7))
