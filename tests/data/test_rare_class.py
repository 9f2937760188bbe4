"""Sampling by rare classes: its distribution, and that ranks and resumed runs draw what one run draws."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError
from fastfcn_pl.data.dataset import SegmentationDataset
from fastfcn_pl.data.rare_class import RareClass, count_pixels
from fastfcn_pl.data.samplers import TrainSampler

SPEC = DatasetSpec("three", ("road", "car", "pole"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
PIXELS = np.array([[96, 4, 0]] * 8 + [[90, 0, 10], [70, 30, 0]])
"""Pixels of the classes in ten images; only image 8 has a pole."""


def _rare(temperature: float = 0.5, min_pixels: int = 1) -> RareClass:
    sampling = RareClass(temperature=temperature, min_pixels=min_pixels)
    sampling.fit(PIXELS)
    return sampling


def _keys(rank: int = 0, world_size: int = 1, epoch: int = 0, done: int = 0) -> list[tuple[int, int]]:
    return list(TrainSampler(10, 3, rank, world_size, epoch, done, _rare().order))


def test_images_are_drawn_by_the_rarity_of_their_classes() -> None:
    shares = PIXELS.sum(0) / PIXELS.sum()
    weights = np.exp((1 - shares) / 0.5)
    of_class = weights / weights.sum()
    expected = np.zeros(10)
    for c in range(3):
        images = np.flatnonzero(PIXELS[:, c])
        expected[images] += of_class[c] / len(images)
    drawn = np.bincount(_rare().order(40_000, torch.Generator().manual_seed(0)).numpy(), minlength=10) / 40_000
    assert np.abs(drawn - expected).max() < 0.01
    assert drawn[8] > 3 * drawn[0]


def test_a_lower_temperature_draws_rare_classes_more_often() -> None:
    rng = torch.Generator().manual_seed(0)
    shares = [float((_rare(t).order(5000, rng) == 8).double().mean()) for t in (10.0, 0.5, 0.05)]
    assert shares == sorted(shares)
    assert shares[2] > 0.6


def test_images_with_few_pixels_of_a_class_are_drawn_for_it_only_if_there_are_no_others() -> None:
    drawn = set(_rare(0.01, min_pixels=20).order(2000, torch.Generator().manual_seed(0)).tolist())
    assert drawn == {8, 9}  # for pole, which no image has 20 pixels of, and for car


def test_ranks_partition_what_one_rank_draws() -> None:
    shares = [_keys(rank, 2) for rank in range(2)]
    assert [key for pair in zip(*shares, strict=True) for key in pair] == _keys()


def test_a_resumed_run_draws_the_rest() -> None:
    assert _keys(1, 2, epoch=4, done=3) == _keys(1, 2, epoch=4)[3:]
    assert _keys(epoch=4) != _keys(epoch=5)


def test_an_image_that_comes_again_is_augmented_anew() -> None:
    keys = _keys()
    assert max(Counter(index for _, index in keys).values()) > 1
    assert len(set(keys)) == len(keys)


@dataclass
class _Masks:
    """Source of images with one row of labels; the last mask is ignored."""

    masks: tuple[tuple[int, ...], ...] = ((0, 0, 1), (2, 0, 0), (IGNORE, IGNORE, IGNORE))

    def __len__(self) -> int:
        return len(self.masks)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        mask = np.array([self.masks[index]], np.uint8)
        return np.zeros((*mask.shape, 3), np.uint8), mask

    def name(self, index: int) -> str:
        return f"mask {index}"

    def files(self, index: int) -> tuple[Path, ...]:
        return ()


def test_pixels_are_counted_without_ignored_ones(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = SegmentationDataset(_Masks(), SPEC)
    counts = count_pixels(dataset, range(3))
    assert [counts[i].tolist() for i in range(3)] == [[2, 1, 0], [2, 0, 1], [0, 0, 0]]
    sampling = RareClass(temperature=0.01, min_pixels=1)
    sampling.prepare(dataset, 0, 1)
    assert "counting the classes of 3 masks" in capsys.readouterr().out
    assert 2 not in sampling.order(500, torch.Generator().manual_seed(0)).tolist()
    sampling.prepare(dataset, 0, 1)  # as when the loader is made again
    assert capsys.readouterr().out == ""


def test_without_it_every_image_comes_once() -> None:
    sampler = TrainSampler(10, 3, 0, 1)
    assert sorted(islice(sampler, 10)) == [(0, i) for i in range(10)]


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.sampler\.temperature=0"):
        RareClass(temperature=0, min_pixels=1)
