"""Table of necks that were fitted to a dilated twin's features, beside the mIoU of the same necks in other studies."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fastfcn_pl.evaluation.approximation import approximation_scores
from fastfcn_pl.evaluation.formatting import percent
from fastfcn_pl.evaluation.paired_comparison import Difference, ScoredRuns, difference, verdicts
from fastfcn_pl.tools.report.groups import Comparison, Group, Spread
from fastfcn_pl.tools.report.image_counts import ApproximationSums, read_approximation
from fastfcn_pl.tools.report.runs import Run
from fastfcn_pl.tools.report.tables import Cell, Table
from fastfcn_pl.tools.report.verdicts import CONFIDENCE

Neck = tuple[object, ...]
_PERMUTATIONS = 9999
"""All orders of seven necks are fewer, so that their p value is exact."""


@dataclass(frozen=True)
class _Row:
    group: Group
    sums: dict[int, ApproximationSums]
    """By seed."""
    error: Spread
    cosine: Spread

    @classmethod
    def of(cls, group: Group) -> _Row | None:
        """Return the row of a group; None if none of its finished runs approximated features."""
        read = {run.seed: read_approximation(run.folder / "approximation.npz", _images(run)) for run in group.finished}
        sums = {seed: it for seed, it in read.items() if it is not None}
        scores = [approximation_scores(it.sums.sum(0)) for it in sums.values()]
        error, cosine = Spread.of(1 - float(r2) for r2, _ in scores), Spread.of(float(it) for _, it in scores)
        return None if error is None or cosine is None else cls(group, sums, error, cosine)


def approximation_table(comparison: Comparison, comparisons: Sequence[Comparison]) -> Table | None:
    """Return the table of `comparison`, best first, with the mIoU of the same necks in others; None without any."""
    rows = [row for group in comparison.groups if (row := _Row.of(group)) is not None]
    if not rows:
        return None
    rows.sort(key=lambda row: row.error.mean)
    best, *others = rows
    compared = [None, *(_difference(row, best) for row in others)]
    words = verdicts(compared, margin=0.0, confidence=CONFIDENCE)
    header = ["neck", "n", "1 - R²", "cosine", f"R² less {best.group.name}'s", "verdict"]
    cells = [
        [
            Cell(row.group.name),
            Cell(str(row.error.n), row.error.n),
            _spread(row.error),
            _spread(row.cosine),
            _difference_cell(d, word),
            Cell(word),
        ]
        for row, d, word in zip(rows, compared, words, strict=True)
    ]
    notes = [
        "1 - R² is the squared error as a share of the variance of the dilated twin's last map, and cosine the mean "
        "similarity to it, over all pixels of the split. Differences have their 95 % interval, paired by seed and "
        "image; verdicts hold together at 95 % (Holm), and one seed shows nothing about others. The mIoU of these runs "
        "is that of a head trained on the approximated features, which does not change them."
    ]
    for study, scores in _scores_by_study(comparisons, leave_out=comparison).items():
        means = [scores.get(_neck(row.group.best)) for row in rows]
        if sum(mean is not None for mean in means) < 2:
            continue
        header.append(f"mIoU, {study}")
        for line, mean in zip(cells, means, strict=True):
            line.append(Cell(percent(mean), mean))
        pairs = [(row.error.mean, mean) for row, mean in zip(rows, means, strict=True) if mean is not None]
        notes.append(_correlation(study, pairs))
    numeric = [title not in ("neck", "verdict") for title in header]
    return Table(header, numeric, cells, ["finished"] * len(cells), notes)


def _images(run: Run) -> int:
    return int((run.results or {})["images"])


def _difference(row: _Row, other: _Row) -> Difference | None:
    """Return the difference of R²; None without common seeds, or for runs that were scored on other images."""
    seeds = sorted(row.sums.keys() & other.sums.keys())
    positions = {it.sums[seed].positions.tobytes() for it in (row, other) for seed in seeds}
    if len(positions) != 1:
        return None
    runs = [np.stack([it.sums[seed].sums for seed in seeds]) for it in (row, other)]
    first, second = (ScoredRuns.of_sums(sums, approximation_scores) for sums in runs)
    return difference(first, second)


def _scores_by_study(comparisons: Sequence[Comparison], leave_out: Comparison) -> dict[str, dict[Neck, float]]:
    """Return the mean mIoU of each neck in each study; a study with several comparisons has one entry for each."""
    found: dict[str, dict[Neck, float]] = {}
    for comparison in comparisons:
        scores: dict[str, dict[Neck, list[float]]] = {}
        for run in (run for group in comparison.groups for run in group.finished):
            if comparison is not leave_out and run.score is not None:
                scores.setdefault(run.study, {}).setdefault(_neck(run), []).append(run.score)
        for study, by_neck in scores.items():
            name = f"{study} ({comparison.title})" if study in found else study
            found[name] = {neck: statistics.fmean(values) for neck, values in by_neck.items()}
    return found


def _neck(run: Run) -> Neck:
    """Return what makes the necks of two runs the same: their own settings, and those of the backbone before them."""
    solved = ((run.results or {}).get("match") or {}).get("solved") or {}
    settings = ("model.neck", "model.backbone.name", "model.backbone.output_stride")
    return (solved.get("width"), *map(run.setting, settings))


def _correlation(study: str, pairs: Sequence[tuple[float, float]]) -> str:
    """Describe the rank correlation of error and mIoU."""
    if len(pairs) < 3:
        return f"Two necks of {study} are too few for a correlation."
    errors, scores = (stats.rankdata(values) - (len(pairs) + 1) / 2 for values in zip(*pairs, strict=True))
    rho = stats.pearsonr(errors, scores).statistic if errors.any() and scores.any() else float("nan")
    test = stats.permutation_test(
        (errors,),
        lambda x, axis: (x * scores).sum(axis),
        permutation_type="pairings",
        n_resamples=_PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return (
        f"Rank correlation (Spearman) of 1 - R² and mIoU in {study}: {rho:.2f} over n = {len(pairs)} necks, "
        f"p = {test.pvalue:.2g} by permutation; -1 if the better approximation always has the higher mIoU."
    )


def _spread(spread: Spread) -> Cell:
    std = "" if spread.std is None else f" ± {spread.std:.4f}"
    return Cell(f"{spread.mean:.4f}{std}", spread.mean)


def _difference_cell(d: Difference | None, verdict: str) -> Cell:
    if d is None:
        return Cell("-")
    low, high = d.interval(CONFIDENCE)
    return Cell(f"{d.mean:+.4f} ({low:+.4f} to {high:+.4f})", d.mean, best=verdict in ("better", "worse"))
