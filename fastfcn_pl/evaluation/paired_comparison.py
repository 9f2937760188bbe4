"""Comparison of networks that were trained with the same seeds and scored on the same images.

A score varies with the seed of the training and with the images of the split. Both are taken into account: the variance
between seeds comes from the runs, the variance between images from a bootstrap over images, which is the same for all
networks (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 8). A few seeds estimate a variance badly, so
the critical value is the mean of Student's for seeds and for images, weighted by the two variances (Cochran and Cox,
Experimental Designs, section 4.14). Intervals then cover at least as often as they say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

RESAMPLES = 1000
_MAX_SEEDS = 100
_SMALLEST = 1e-12
"""Probability below which a tail is 0."""


@dataclass(frozen=True)
class ScoredRuns:
    """K scores of S runs of one network, and of the same runs on B bootstrap samples of the images."""

    scores: np.ndarray
    """`(S, K)`. Those of pixel counts are the mean IoU and the IoU of each class; NaN for a class without pixels."""
    resampled: np.ndarray
    """`(B, S, K)`."""
    images: int

    @classmethod
    def of(cls, counts: np.ndarray) -> ScoredRuns:
        """Score `counts` `(S, N, 3, C)` of S runs on N images: correct, labelled and predicted pixels of each class."""
        return cls.of_sums(counts, iou_scores)

    @classmethod
    def of_sums(cls, by_image: np.ndarray, scores: Callable[[np.ndarray], np.ndarray]) -> ScoredRuns:
        """Score `by_image` `(S, N, ...)` of S runs on N images by `scores(sums over images)`: `(..., K)`."""
        runs, images, *shape = by_image.shape
        draws = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), RESAMPLES)
        rows = by_image.swapaxes(0, 1).reshape(images, -1).astype(np.float64)
        resampled = (draws @ rows).reshape(RESAMPLES, runs, *shape)
        return cls(scores(by_image.sum(1)), scores(resampled), images)


def iou_scores(counts: np.ndarray) -> np.ndarray:
    """Return mean IoU and the IoU of the classes `(..., 1 + C)` of pixel counts `(..., 3, C)`."""
    correct, labelled, predicted = np.moveaxis(counts, -2, 0)
    union = labelled + predicted - correct
    iou = np.divide(correct, union, out=np.full(union.shape, np.nan), where=union > 0)
    present = (union > 0).sum(-1, keepdims=True)
    mean = np.divide(np.nansum(iou, -1, keepdims=True), present, out=np.full(present.shape, np.nan), where=present > 0)
    return np.concatenate([mean, iou], -1)


@dataclass(frozen=True)
class Difference:
    """Difference of a score between two networks, as a fraction, with the variances of its estimate."""

    mean: float
    seeds: int
    images: int
    seed_variance: float
    """Variance of the difference between runs, without what the choice of the images adds."""
    image_variance: float
    """Variance of the mean difference that an infinite number of runs would have, by the choice of the images."""
    interaction: float
    """Variance between runs that the choice of the images adds; more runs reduce it, too."""

    def std_error(self, seeds: int | None = None) -> float:
        """Return the standard error, or the one that this many seeds would give."""
        return math.sqrt(self.image_variance + (self.seed_variance + self.interaction) / (seeds or self.seeds))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided confidence interval."""
        half = self._critical_value((1 - confidence) / 2, self.seeds) * self.std_error()
        return self.mean - half, self.mean + half

    def p_value(self, seeds: int | None = None) -> float:
        """Return the two-sided p value of a difference of zero."""
        return 2 * self._tail(abs(self.mean), seeds or self.seeds)

    def equivalence_p_value(self, margin: float, seeds: int | None = None) -> float:
        """Return the p value of a difference of `margin` or more, by two one-sided tests (Schuirmann, 1987)."""
        inside = margin - abs(self.mean)
        tail = self._tail(abs(inside), seeds or self.seeds)
        return tail if inside > 0 else 1 - tail

    def _critical_value(self, tail: float, seeds: int) -> float:
        """Return the number of standard errors that the estimate exceeds with probability `tail`."""
        weight = 0.0
        if seeds > 1 and (error := self.std_error(seeds)) > 0:
            weight = (self.seed_variance + self.interaction) / seeds / error**2
        by_images = -special.stdtrit(max(self.images - 1, 1), tail)
        return (
            float(-weight * special.stdtrit(seeds - 1, tail) + (1 - weight) * by_images) if weight else float(by_images)
        )

    def _tail(self, distance: float, seeds: int) -> float:
        """Return the probability, at most 0.5, that the estimate exceeds its mean by `distance`."""
        error = self.std_error(seeds)
        if distance == 0 or error == 0:
            return 0.5 if distance == 0 else 0.0
        if self._critical_value(_SMALLEST, seeds) < distance / error:
            return 0.0
        return float(optimize.brentq(lambda p: self._critical_value(p, seeds) - distance / error, _SMALLEST, 0.5))

    def seeds_to_decide(self, alpha: float, margin: float) -> int | None:
        """Return how many more seeds would decide at level `alpha`, if the estimates hold; None if seeds would not."""
        for seeds in range(max(self.seeds, 2), _MAX_SEEDS + 1):
            if min(self.p_value(seeds), self.equivalence_p_value(margin, seeds)) < alpha:
                return seeds - self.seeds
        return None


def difference(a: ScoredRuns, b: ScoredRuns, score: int = 0) -> Difference | None:
    """Return the difference a - b of one score: 0 for the mean IoU, 1 + c for class c; None where it is not defined.

    Run s of `a` and run s of `b` have the same seed, and both networks were scored on the same images.
    """
    by_seed = a.scores[:, score] - b.scores[:, score]
    resampled = a.resampled[..., score] - b.resampled[..., score]
    resampled = resampled[~np.isnan(resampled).any(1)]
    if np.isnan(by_seed).any() or len(resampled) < RESAMPLES // 2:
        return None
    seeds, correction = len(by_seed), a.images / max(a.images - 1, 1)
    of_mean = correction * float(resampled.mean(1).var(ddof=1))
    of_one = correction * float(resampled.var(0, ddof=1).mean())
    if seeds == 1:
        return Difference(float(by_seed[0]), 1, a.images, 0.0, of_mean, 0.0)
    # By images and seeds: of_mean = image + interaction / S, of_one = image + interaction.
    interaction = max(0.0, (of_one - of_mean) * seeds / (seeds - 1))
    between = float(by_seed.var(ddof=1))  # the seeds' variance + interaction
    image = max(0.0, of_mean - interaction / seeds)
    return Difference(float(by_seed.mean()), seeds, a.images, max(0.0, between - interaction), image, interaction)


def estimate(runs: ScoredRuns, score: int = 0) -> Difference | None:
    """Return one score of a network, 0 for the mean IoU, as its difference from zero; None where it is not defined."""
    zero = ScoredRuns(np.zeros_like(runs.scores), np.zeros_like(runs.resampled), runs.images)
    return difference(runs, zero, score)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm, 1979)."""
    order = np.argsort(p_values)
    adjusted = np.asarray(p_values)[order] * (len(p_values) - np.arange(len(p_values)))
    result = np.empty(len(p_values))
    result[order] = np.minimum(np.maximum.accumulate(adjusted), 1.0)
    return result.tolist()


def verdicts(differences: Sequence[Difference | None], *, margin: float, confidence: float) -> list[str]:
    """Return a verdict for each difference: `better`, `worse`, `equivalent` or `not shown`; empty for none.

    All of them hold together at the level `confidence`. A single run of each network shows nothing about others.
    """
    alpha, words = 1 - confidence, ["" if d is None else "not shown" for d in differences]
    tested = [(i, d) for i, d in enumerate(differences) if d is not None and d.seeds > 1]
    shown = holm([d.p_value() for _, d in tested])
    equal = holm([d.equivalence_p_value(margin) for _, d in tested])
    for (i, d), p_shown, p_equal in zip(tested, shown, equal, strict=True):
        if p_shown < alpha:
            words[i] = "better" if d.mean > 0 else "worse"
        elif p_equal < alpha:
            words[i] = "equivalent"
    return words
