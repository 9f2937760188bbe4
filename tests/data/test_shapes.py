"""The data set Shapes is reproducible, labelled correctly, and not solvable by colour alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.data.datasets.shapes import BACKGROUND, HOLE, RING, SPEC, ShapesSource
from fastfcn_pl.evaluation.protocols import native
from tests.conftest import TINY

SIZE = 128
K = SPEC.num_classes


def pixels(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images `(count, SIZE, SIZE, 3)` and labels `(count, SIZE, SIZE)`."""
    source = ShapesSource(count=count, size=SIZE, seed=seed)
    images, labels = zip(*(source.read(i) for i in range(count)), strict=True)
    return np.stack(images), np.stack(labels)


@pytest.fixture(scope="module")
def train() -> tuple[np.ndarray, np.ndarray]:
    return pixels(seed=0, count=256)


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    return pixels(seed=1, count=64)


def mean_iou(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the mIoU over all pixels except `IGNORE`, and over all classes that occur."""
    valid = labels != IGNORE
    confusion = np.bincount(labels[valid].astype(int) * K + predicted[valid], minlength=K * K).reshape(K, K)
    hits, union = confusion.diagonal(), confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return float((hits[union > 0] / union[union > 0]).mean())


def test_picture_depends_on_seed_and_index_alone() -> None:
    source, longer, other = (ShapesSource(count, SIZE, seed) for count, seed in ((4, 7), (9, 7), (4, 8)))
    source.read(0)
    image, mask = source.read(3)
    again, mask_again = longer.read(3)
    assert image.tobytes() == again.tobytes()
    assert mask.tobytes() == mask_again.tobytes()
    assert image.tobytes() != source.read(2)[0].tobytes()
    assert image.tobytes() != other.read(3)[0].tobytes()
    assert len({source.name(2), source.name(3), other.name(3)}) == 3


@pytest.mark.parametrize("size", [32, 97, 160])
def test_pairs_have_the_requested_size(size: int) -> None:
    image, mask = ShapesSource(count=1, size=size, seed=0).read(0)
    assert (image.dtype, image.shape, mask.dtype, mask.shape) == (np.uint8, (size, size, 3), np.uint8, (size, size))


def test_a_picture_is_the_same_scene_at_any_size() -> None:
    small, large = (np.asarray(ShapesSource(1, size, 0).read(0)[1]) for size in (SIZE, 2 * SIZE))
    shrunk = large[::2, ::2]
    valid = (small != IGNORE) & (shrunk != IGNORE)
    assert (small == shrunk)[valid].mean() > 0.99


@pytest.mark.slow
def test_labels_are_the_classes_and_ignore_and_none_is_rare(train: tuple[np.ndarray, np.ndarray]) -> None:
    share = np.bincount(train[1][:48].ravel(), minlength=256) / train[1][:48].size
    assert share[:K].sum() + share[IGNORE] == pytest.approx(1)
    assert share[:K].min() > 0.01
    assert 0.02 < share[IGNORE] < 0.12


def test_an_ignored_border_separates_any_two_classes(train: tuple[np.ndarray, np.ndarray]) -> None:
    labels = train[1]
    for a, b in ((labels[:, 1:], labels[:, :-1]), (labels[:, :, 1:], labels[:, :, :-1])):
        assert not ((a != b) & (a != IGNORE) & (b != IGNORE)).any()


def test_figures_overlap(train: tuple[np.ndarray, np.ndarray]) -> None:
    """In most pictures two figures of different classes touch, with only an ignored border between them."""
    labels = train[1]
    left, right = labels[:, :, 4:], labels[:, :, :-4]
    figures = [(side != IGNORE) & (side != BACKGROUND) & (side != HOLE) for side in (left, right)]
    between = [labels[:, :, i : i - 4] == BACKGROUND for i in (1, 2, 3)]
    overlap = (left != right) & figures[0] & figures[1] & ~np.any(between, axis=0)
    assert overlap.any(axis=(1, 2)).mean() > 0.5


def test_a_hole_is_surrounded_by_its_ring_and_looks_like_background(train: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = train
    has_hole = (labels == HOLE).any(axis=(1, 2))
    assert (labels == RING).any(axis=(1, 2))[has_hole].all()
    apart = [
        np.abs(np.median(image[mask == HOLE], axis=0) - np.median(image[mask == BACKGROUND], axis=0)).mean()
        for image, mask in zip(images[has_hole], labels[has_hole], strict=True)
    ]
    assert np.median(apart) < 25


@pytest.mark.slow
def test_one_class_everywhere_scores_below_0_15(held_out: tuple[np.ndarray, np.ndarray]) -> None:
    labels = held_out[1]
    assert max(mean_iou(np.full(labels.shape, k), labels) for k in range(K)) < 0.15


@pytest.mark.slow
def test_an_untrained_net_scores_below_0_15(
    held_out: tuple[np.ndarray, np.ndarray], make_config: Callable[..., DictConfig]
) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        model = instantiate(make_config(*TINY).model, K, _convert_="all").eval()
        with torch.no_grad():
            x = torch.from_numpy(held_out[0]).permute(0, 3, 1, 2) / 255 - 0.5
            predicted = native(model, x, (SIZE, SIZE)).labels().numpy()
        assert mean_iou(predicted, held_out[1]) < 0.15


@pytest.mark.parametrize("bits", [3, 4, 5])
@pytest.mark.parametrize("balance", [0.0, 0.5, 0.8, 1.0], ids="balance={}".format)
def test_the_colour_of_a_pixel_does_not_predict_its_class(
    train: tuple[np.ndarray, np.ndarray], held_out: tuple[np.ndarray, np.ndarray], bits: int, balance: float
) -> None:
    """Predict the most frequent class of each colour cell, with classes weighted by `frequency ** -balance`."""

    def cells(images: np.ndarray) -> np.ndarray:
        levels = images >> (8 - bits)
        return np.ravel_multi_index((levels[..., 0], levels[..., 1], levels[..., 2]), (1 << bits,) * 3)

    images, labels = train
    valid = labels != IGNORE
    counts = np.bincount(cells(images)[valid] * K + labels[valid], minlength=K << 3 * bits).reshape(-1, K)
    weighted = (counts + 1e-3) / counts.sum(axis=0) ** balance
    assert mean_iou(weighted.argmax(axis=1)[cells(held_out[0])], held_out[1]) < 0.2
