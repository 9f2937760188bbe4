"""Verdicts of a study: which rows are better than others, and which differences are not shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from fastfcn_pl.evaluation.formatting import percent
from fastfcn_pl.evaluation.paired_comparison import Difference, ScoredRuns, difference, estimate, verdicts
from fastfcn_pl.tools.report.groups import Group
from fastfcn_pl.tools.report.settings import has_overrides
from fastfcn_pl.tools.report.tables import Cell, Table

CONFIDENCE = 0.95
MAX_GROUPS = 12
_MARGIN = 0.5  # of runs that were started before the key `margin` existed
_ANSWERS = {
    "better": "better",
    "worse": "worse",
    "equivalent": "equivalent",
    "not shown": "not shown to differ",
}
_SHORT = {"better": "+", "worse": "-", "equivalent": "=", "not shown": "?"}


@dataclass
class Verdicts:
    """Verdicts on the groups of a comparison, best first."""

    answer: str = ""
    """Two sentences: the best group with its score, and the verdict on each other group against the baseline."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 % interval of the mean IoU of each group with several seeds, by its name."""
    differences: Table | None = None
    """Differences of the mean IoU to the baseline, with intervals and verdicts."""
    matrix: Table | None = None
    """Verdict of each row against each column."""
    classes: Table | None = None
    """Differences of each class's IoU to the baseline."""
    best_is_shown: bool = False
    """The first group is better than each other group, and not by chance."""
    shown_classes: dict[str, str] = field(default_factory=dict)
    """Classes in which one group is better than each other one, with its name."""
    note: str = ""
    """Reason why there are no verdicts."""


def judge(groups: Sequence[Group]) -> Verdicts:
    """Compare the finished groups that were trained with the same seeds, at most `MAX_GROUPS`, with each other."""
    finished = [group for group in groups if group.finished]
    if len(finished) < 2:
        return Verdicts()
    config = finished[0].best.config
    baseline = _baseline(finished, config.get("baseline"))
    if baseline is None:
        return Verdicts(note=f"No verdicts: the baseline {config['baseline']} has no finished run here.")
    if finished.index(baseline) >= MAX_GROUPS:
        finished = [*finished[: MAX_GROUPS - 1], baseline]
    finished = finished[:MAX_GROUPS]
    if any(run.counts is None for group in finished for run in group.finished):
        return Verdicts(note="No verdicts: these runs were scored before the counts of each image were kept.")
    positions = {run.counts.positions.tobytes() for group in finished for run in group.finished if run.counts}
    if len(positions) > 1:
        return Verdicts(note="No verdicts: the runs were scored on different images.")
    if not (seeds := _common_seeds(finished)):
        return Verdicts(note="No verdicts: the rows have no seed in common.")
    scored = [ScoredRuns.of(group.counts_of(seeds)) for group in finished]
    classes = list((finished[0].finished[0].results or {})["IoU"])
    pairs = {(i, j): difference(scored[i], scored[j]) for i, j in combinations(range(len(finished)), 2)}
    margin = float(_MARGIN if config.get("margin") is None else config["margin"]) / 100
    words = dict(zip(pairs, verdicts(list(pairs.values()), margin=margin, confidence=CONFIDENCE), strict=True))
    base = finished.index(baseline)
    others = [group for group in finished if group is not baseline]
    compared = [difference(scored[finished.index(group)], scored[base]) for group in others]
    to_baseline = verdicts(compared, margin=margin, confidence=CONFIDENCE)
    return Verdicts(
        answer=_answer(finished, baseline, dict(zip((group.name for group in others), to_baseline, strict=True))),
        intervals=_intervals(finished, scored),
        differences=_differences(finished[base], others, compared, to_baseline, margin, _notes(seeds, scored, margin)),
        matrix=_matrix(finished, words) if len(finished) > 2 else None,
        classes=_class_differences(finished, scored, base, classes),
        best_is_shown=all(words.get((0, j)) == "better" for j in range(1, len(finished))),
        shown_classes=_shown_classes(finished, scored, classes),
    )


def paired_difference(first: Group, second: Group) -> Difference | None:
    """Return the difference of the mean IoU of two groups; None without common seeds or without counts of images."""
    seeds = _common_seeds([first, second])
    if not seeds or any(run.counts is None for run in (*first.finished, *second.finished)):
        return None
    return difference(ScoredRuns.of(first.counts_of(seeds)), ScoredRuns.of(second.counts_of(seeds)))


def _common_seeds(groups: Sequence[Group]) -> list[int]:
    return sorted(set.intersection(*({run.seed for run in group.finished} for group in groups)))


def _baseline(groups: Sequence[Group], override: str | None) -> Group | None:
    """Return the row that the study names as `baseline`, if it is one; the first, which is the best, without a name."""
    if override is None:
        return groups[0]
    return next((group for group in groups if has_overrides(group.best.setting, override)), None)


def _answer(groups: Sequence[Group], baseline: Group, to_baseline: dict[str, str]) -> str:
    best = groups[0]
    runs = f", the mean of {best.score.n} seeds" if best.score and best.score.n > 1 else ""
    parts = []
    for verdict, text in _ANSWERS.items():
        if names := [_with_cost(group, baseline) for group in groups if to_baseline.get(group.name) == verdict]:
            parts.append(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {text}")
    score = percent(best.score.mean if best.score else None)
    return f"{best.name} has the highest mIoU, {score} %{runs}. Compared with {baseline.name}, {'; '.join(parts)}."


def _with_cost(group: Group, baseline: Group) -> str:
    """Return the name of a group, with its multiply-accumulates relative to the baseline's if both were counted."""
    gmacs, reference = (g.best.cost.get("gmacs") for g in (group, baseline))
    return f"{group.name} ({gmacs / reference:.2f} of its GMACs)" if gmacs and reference else group.name


def _intervals(groups: Sequence[Group], scored: Sequence[ScoredRuns]) -> dict[str, tuple[float, float]]:
    estimates = {group.name: estimate(runs) for group, runs in zip(groups, scored, strict=True)}
    return {name: e.interval(CONFIDENCE) for name, e in estimates.items() if e is not None and e.seeds > 1}


def _differences(
    baseline: Group,
    others: Sequence[Group],
    compared: Sequence[Difference | None],
    to_baseline: Sequence[str],
    margin: float,
    notes: list[str],
) -> Table:
    count = sum(d is not None for d in compared)
    rows = []
    for group, d, verdict in zip(others, compared, to_baseline, strict=True):
        if d is None:
            rows.append([Cell(group.name), *[Cell("-")] * 4])
            continue
        low, high = d.interval(CONFIDENCE)
        rows.append(
            [
                Cell(group.name),
                Cell(f"{100 * d.mean:+.2f}", d.mean, best=verdict in ("better", "worse")),
                Cell(f"{100 * low:+.2f} to {100 * high:+.2f}", high - low),
                Cell(verdict),
                _more_seeds(d, verdict, margin, count),
            ]
        )
    header = [f"compared with {baseline.name}", "mIoU, points", "95 % interval", "verdict", "more seeds to decide"]
    return Table(header, [False, True, True, False, True], rows, ["finished"] * len(rows), notes)


def _more_seeds(d: Difference, verdict: str, margin: float, comparisons: int) -> Cell:
    if verdict != "not shown":
        return Cell("")
    more = d.seeds_to_decide((1 - CONFIDENCE) / comparisons, margin)
    return Cell("more images", None) if more is None else Cell(str(more), more)


def _notes(seeds: Sequence[int], scored: Sequence[ScoredRuns], margin: float) -> list[str]:
    runs = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    notes = [
        f"Differences of the means over {runs} on {scored[0].images} images, paired by seed and image. Intervals cover "
        "the choice of seeds and of images. Verdicts hold together at 95 % (Holm); equivalent is within "
        f"{100 * margin:g} points."
    ]
    return notes if len(seeds) > 1 else [*notes, "One seed shows nothing about others, so no difference is shown."]


def _matrix(groups: Sequence[Group], words: dict[tuple[int, int], str]) -> Table:
    opposite = {"better": "worse", "worse": "better"}
    rows = []
    for i, group in enumerate(groups):
        row = [words.get((i, j)) or opposite.get(w := words.get((j, i), ""), w) for j in range(len(groups))]
        rows.append([Cell(group.name), *(Cell(_SHORT.get(word, ""), best=word in opposite) for word in row)])
    note = "Row against column, over all pairs: + better, - worse, = equivalent, ? not shown."
    header = ["verdict", *(group.name for group in groups)]
    return Table(header, [False] * len(header), rows, ["finished"] * len(rows), [note])


def _class_differences(
    groups: Sequence[Group], scored: Sequence[ScoredRuns], base: int, classes: Sequence[str]
) -> Table:
    columns: list[list[Cell]] = []
    others = [i for i in range(len(groups)) if i != base]
    for i in others:
        compared = [difference(scored[i], scored[base], 1 + c) for c in range(len(classes))]
        words = verdicts(compared, margin=0.0, confidence=CONFIDENCE)
        columns.append([_difference_cell(d, word) for d, word in zip(compared, words, strict=True)])
    rows = [[Cell(name), *(column[c] for column in columns)] for c, name in enumerate(classes)]
    header = [f"IoU less {groups[base].name}'s", *(groups[i].name for i in others)]
    note = "Points, with half of the 95 % interval. Bold is shown, over all classes of a column (Holm)."
    return Table(header, [False, *[True] * len(others)], rows, ["finished"] * len(rows), [note])


def _difference_cell(d: Difference | None, verdict: str) -> Cell:
    if d is None:
        return Cell("-")
    low, high = d.interval(CONFIDENCE)
    text = f"{100 * d.mean:+.2f} ± {50 * (high - low):.2f}"
    return Cell(text, d.mean, best=verdict in ("better", "worse"))


def _shown_classes(groups: Sequence[Group], scored: Sequence[ScoredRuns], classes: Sequence[str]) -> dict[str, str]:
    """Return the classes in which the best group is better than each other one, over all classes and groups."""
    winners: dict[str, str] = {}
    compared: list[tuple[str, Difference]] = []
    for c, name in enumerate(classes):
        means = [runs.scores[:, 1 + c].mean() for runs in scored]
        best = max(range(len(means)), key=lambda i: -1.0 if np.isnan(means[i]) else means[i])
        pairs = [difference(scored[best], other, 1 + c) for i, other in enumerate(scored) if i != best]
        compared += [(name, d) for d in pairs if d is not None]
        if any(pairs):
            winners[name] = groups[best].name
    words = verdicts([d for _, d in compared], margin=0.0, confidence=CONFIDENCE)
    not_shown = {name for (name, _), word in zip(compared, words, strict=True) if word != "better"}
    return {name: group for name, group in winners.items() if name not in not_shown}
