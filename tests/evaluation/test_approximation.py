"""Scores of approximated features against all pixels of a split at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastfcn_pl.evaluation.approximation import FeatureSums, approximation_scores, image_table
from fastfcn_pl.evaluation.paired_comparison import ScoredRuns

SIZES = [(3, 4), (5, 2), (1, 7), (4, 4)]


def _images() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return approximated and true features of images of several sizes and means, with large means of channels."""
    torch.manual_seed(0)
    pairs = []
    for i, size in enumerate(SIZES):
        true = torch.randn(6, *size) + 30 * torch.arange(6.0).view(6, 1, 1) + i
        pairs.append((true + 0.5 * torch.randn(6, *size), true))
    return pairs


def _naive(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float]:
    approximated, true = (
        np.concatenate([maps.double().numpy().reshape(6, -1).T for maps in side]) for side in zip(*pairs, strict=True)
    )
    r2 = 1 - ((approximated - true) ** 2).sum() / ((true - true.mean(0)) ** 2).sum()
    lengths = np.linalg.norm(approximated, axis=1) * np.linalg.norm(true, axis=1)
    return r2, ((approximated * true).sum(1) / lengths).mean()


def test_scores_of_a_split_are_those_of_all_its_pixels() -> None:
    pairs = _images()
    table = image_table([FeatureSums.of(*pair, i) for i, pair in enumerate(pairs)])
    assert table[:, 3].tolist() == [12, 10, 7, 16]
    assert approximation_scores(table.sum(0)) == pytest.approx(_naive(pairs), rel=1e-9)


def test_many_scores_are_computed_at_once_and_empty_ones_are_nan() -> None:
    table = np.array([[1.0, 4.0, 1.5, 3.0], [0.0, 0.0, 0.0, 0.0]])
    scores = approximation_scores(np.stack([table, table]))
    assert scores.shape == (2, 2, 2)
    assert scores[0, 0].tolist() == [0.75, 0.5]
    assert np.isnan(scores[1, 1]).all()


def test_bootstrap_samples_are_scored_as_whole_splits() -> None:
    pairs = _images()
    table = image_table([FeatureSums.of(*pair, i) for i, pair in enumerate(pairs)])
    runs = ScoredRuns.of_sums(table[None], approximation_scores)
    assert runs.scores[0] == pytest.approx(_naive(pairs), rel=1e-9)
    draw = np.random.default_rng(0).multinomial(4, [0.25] * 4, 1000)[7]
    assert runs.resampled[7, 0] == pytest.approx(approximation_scores(draw @ table))
