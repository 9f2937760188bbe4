"""Intervals and verdicts of differences between networks, against simulations whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fastfcn_pl.evaluation import paired_comparison
from fastfcn_pl.evaluation.paired_comparison import Difference, ScoredRuns, difference, estimate, holm, verdicts


def _simulated(
    rng: np.random.Generator, seeds: int, shift: float, images: int = 100, classes: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts of two networks, the second better by `shift` logits of each pixel's chance to be right.

    Chances vary with the seed, with the image in the same way for both, and with each pair of image and network.
    """
    sizes = rng.gamma(1.0, 300.0, (images, classes)).round()
    common, networks = rng.normal(0, 0.8, (images, classes)), []
    for mean in (0.5, 0.5 + shift):
        logits = mean + rng.normal(0, 0.06, (seeds, 1, 1)) + common + rng.normal(0, 0.3, (images, classes))
        logits = logits + rng.normal(0, 0.3, (seeds, images, classes))
        correct = np.floor(sizes / (1 + np.exp(-logits)))
        predicted = correct + np.floor((sizes - correct) * 0.8)
        networks.append(np.stack([correct, np.broadcast_to(sizes, correct.shape), predicted], 2))
    return networks[0], networks[1]


def _estimate(rng: np.random.Generator, seeds: int, shift: float) -> Difference:
    first, second = _simulated(rng, seeds, shift)
    result = difference(ScoredRuns.of(second), ScoredRuns.of(first))
    assert result is not None
    return result


@pytest.mark.exhaustive
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_the_truth(seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_comparison, "RESAMPLES", 300)
    rng = np.random.default_rng(seeds)
    shift = 0.2
    truth = np.mean([_estimate(rng, 20, shift).mean for _ in range(400)])
    estimates = [_estimate(rng, seeds, shift) for _ in range(1000)]
    covered = [low <= truth <= high for low, high in (d.interval(0.95) for d in estimates)]
    assert 0.93 <= np.mean(covered) <= 0.97
    # The power is that of a normal estimate with the true standard error, averaged over the widths of the intervals.
    error, edges = np.std([d.mean for d in estimates]), np.array([d.interval(0.95)[1] - d.mean for d in estimates])
    power = np.mean(stats.norm.sf((edges - truth) / error))
    found = np.mean([verdicts([d], margin=1e-9, confidence=0.95) == ["better"] for d in estimates])
    assert found == pytest.approx(power, abs=0.06)


@pytest.mark.exhaustive
def test_networks_that_are_equal_are_seldom_called_better_or_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_comparison, "RESAMPLES", 300)
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(300):  # comparisons of four networks with a baseline
        estimates = [_estimate(rng, 3, 0.0) for _ in range(4)]
        wrong += bool({"better", "worse"} & set(verdicts(estimates, margin=1e-9, confidence=0.95)))
    assert wrong / 300 <= 0.06


def test_scores_are_those_of_a_loop_over_classes() -> None:
    counts = np.random.default_rng(0).integers(1, 50, (2, 7, 3, 4))
    counts[:, :, 0] = np.minimum(counts[:, :, 0], counts[:, :, 1:].min(2))
    counts[..., 3] = 0  # a class without a pixel
    runs = ScoredRuns.of(counts)
    for s in range(2):
        sums = counts[s].sum(0)
        iou = [sums[0, c] / (sums[1, c] + sums[2, c] - sums[0, c]) for c in range(3)]
        assert runs.scores[s] == pytest.approx([sum(iou) / 3, *iou, np.nan], nan_ok=True)
    assert runs.resampled[..., 0].mean() == pytest.approx(runs.scores[:, 0].mean(), abs=0.02)


def test_the_same_runs_do_not_differ() -> None:
    counts = np.random.default_rng(0).integers(1, 50, (3, 20, 3, 4))
    runs = ScoredRuns.of(counts)
    same = difference(runs, runs)
    assert same is not None
    assert (same.mean, same.std_error(), same.p_value()) == (0, 0, 1)
    assert verdicts([same], margin=0.005, confidence=0.95) == ["equivalent"]


def test_one_seed_shows_nothing() -> None:
    first, second = _simulated(np.random.default_rng(0), 1, 3.0)
    one = difference(ScoredRuns.of(second), ScoredRuns.of(first))
    assert one is not None
    assert one.interval(0.95)[0] > 0.2  # by the images
    assert verdicts([one], margin=0.005, confidence=0.95) == ["not shown"]


def test_holm_adjusts_by_rank() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_more_seeds_shrink_what_seeds_cause() -> None:
    d = Difference(0.01, 3, 100, seed_variance=1e-4, image_variance=1e-6, interaction=1e-5)
    more = d.seeds_to_decide(0.05, margin=0.005)
    assert more is not None
    assert d.p_value(3 + more) < 0.05 <= d.p_value(3 + more - 1)
    images = Difference(0.01, 3, 100, seed_variance=0, image_variance=1e-4, interaction=0)
    assert images.seeds_to_decide(0.05, margin=0.005) is None


def test_an_estimate_is_the_score_with_its_interval() -> None:
    first, _ = _simulated(np.random.default_rng(0), 3, 0.0)
    runs = ScoredRuns.of(first)
    score = estimate(runs)
    assert score is not None
    assert score.mean == pytest.approx(runs.scores[:, 0].mean())
    low, high = score.interval(0.95)
    assert low < score.mean < high
