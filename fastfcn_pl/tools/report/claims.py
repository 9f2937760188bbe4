"""Claims about studies: statements whose tests the runs of a study confirm, refute or leave undecided."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastfcn_pl.core.types import UserError
from fastfcn_pl.evaluation.formatting import significant
from fastfcn_pl.evaluation.paired_comparison import Difference
from fastfcn_pl.tools.report.files import TEXT, read_yaml
from fastfcn_pl.tools.report.groups import Comparison
from fastfcn_pl.tools.report.runs import Run
from fastfcn_pl.tools.report.settings import has_overrides
from fastfcn_pl.tools.report.tables import Cell, Table
from fastfcn_pl.tools.report.verdicts import CONFIDENCE, paired_difference

SHAPE: dict[str, Any] = {
    "statement": TEXT,
    "source": TEXT,
    "study": TEXT,
    "scale": TEXT,
    "rows": {"*": TEXT},
    "tests": [TEXT],
}
_TEST = re.compile(
    r"(?P<score>\w+)\((?P<row>\w+)\)\s*(?P<relation><=|>=)\s*(?:(?P<factor>\d+(?:\.\d+)?)\s*\*\s*)?"
    r"(?P<other_score>\w+)\((?P<other>\w+)\)(?:\s*(?P<sign>[+-])\s*(?P<offset>\d+(?:\.\d+)?))?"
)
_COSTS = ("parameters", "gmacs", "latency_ms", "peak_mib")
_SCORE = "mIoU"
_RELATIONS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Claim:
    """A statement about the rows of a study, with its source and the scale at which it was tested."""

    path: Path
    statement: str
    source: str
    study: str
    scale: str
    rows: dict[str, str]
    """Overrides that select each row, separated by spaces."""
    tests: list[str]
    """Such as `mIoU(jpu) >= mIoU(dilated) - 0.5`, in points, or `gmacs(jpu) <= 0.5 * gmacs(dilated)`."""

    @classmethod
    def read(cls, path: Path) -> Claim:
        """Read a claim from YAML; raises UserError for a missing key or a test that cannot be understood."""
        claim = cls(path, **read_yaml(path, SHAPE))
        for test in claim.tests:
            claim.parse(test)
        return claim

    def parse(self, test: str) -> dict[str, str | None]:
        match = _TEST.fullmatch(test.strip())
        if match is None:
            raise UserError(
                f"{self.path}: the test {test!r} is not of a form such as mIoU(a) >= mIoU(b) - 0.5 or "
                "gmacs(a) <= 0.5 * gmacs(b)"
            )
        parts = match.groupdict()
        if parts["score"] != parts["other_score"] or parts["score"] not in (_SCORE, *_COSTS):
            raise UserError(f"{self.path}: {test!r} compares one of {', '.join((_SCORE, *_COSTS))} with itself")
        if parts["score"] == _SCORE and parts["factor"]:
            raise UserError(f"{self.path}: {test!r} compares scores by a factor: state a difference in points")
        for row in (parts["row"], parts["other"]):
            if row not in self.rows:
                raise UserError(f"{self.path}: {test!r} names the row {row}, but rows has {', '.join(self.rows)}")
        return parts


def claim_table(claims: Sequence[Claim], comparisons: Sequence[Comparison], runs: Sequence[Run]) -> Table | None:
    """Return a table of claims with what was found; None without claims.

    Scores are compared within one of `comparisons`; costs come from any of `runs`.
    """
    rows = []
    for claim in claims:
        found = [_examine(claim, test, comparisons, runs) for test in claim.tests]
        words = [word for word, _ in found]
        verdict = next((word for word in ("refuted", "undecided") if word in words), "confirmed")
        texts = [f"{test}: {text}" for test, (_, text) in zip(claim.tests, found, strict=True)]
        cells = [claim.statement, verdict, "; ".join(texts), claim.scale, claim.source]
        rows.append([Cell(text, best=text == verdict != "undecided") for text in cells])
    header = ["claim", "verdict", "tests", "scale", "source"]
    notes = ["A test of mIoU is confirmed or refuted if its 95 % interval, over seeds and images, lies on one side."]
    return Table(header, [False] * 5, rows, ["finished"] * len(rows), notes) if rows else None


def _examine(claim: Claim, test: str, comparisons: Sequence[Comparison], runs: Sequence[Run]) -> tuple[str, str]:
    """Return `confirmed`, `refuted` or `undecided`, and the numbers."""
    parts = claim.parse(test)
    names = [str(parts["row"]), str(parts["other"])]
    bound = float(parts["offset"] or 0) * (-1 if parts["sign"] == "-" else 1)
    if parts["score"] == _SCORE:
        return _examine_score(_difference(claim, names, comparisons), str(parts["relation"]), bound)
    costs = _costs(claim, names, runs, str(parts["score"]))
    if costs is None:
        return "undecided", "not measured under equal conditions"
    limit = float(parts["factor"] or 1) * costs[1] + bound
    holds = _RELATIONS[str(parts["relation"])](costs[0], limit)
    return (
        "confirmed" if holds else "refuted",
        f"{significant(costs[0], 4)} and {significant(costs[1], 4)}, a ratio of {costs[0] / costs[1]:.3f}",
    )


def _difference(claim: Claim, names: Sequence[str], comparisons: Sequence[Comparison]) -> Difference | None:
    """Return the difference of two rows' scores in the first comparison that has one finished group for each."""
    for comparison in comparisons:
        finished = [group for group in comparison.groups if group.finished]
        matching = [[g for g in finished if _selects(claim.rows[name], g.best, claim.study)] for name in names]
        if all(len(groups) == 1 for groups in matching):
            return paired_difference(matching[0][0], matching[1][0])
    return None


def _examine_score(d: Difference | None, relation: str, bound: float) -> tuple[str, str]:
    if d is None:
        return "undecided", "no single row for each name, trained with common seeds"
    low, high = (100 * edge for edge in d.interval(CONFIDENCE))
    text = f"{100 * d.mean:+.2f} points ({low:+.2f} to {high:+.2f})"
    if d.seeds == 1:
        return "undecided", f"{text}, one seed"
    if relation == "<=":
        low, high, bound = -high, -low, -bound
    return "confirmed" if low >= bound else "refuted" if high < bound else "undecided", text


def _costs(claim: Claim, names: Sequence[str], runs: Sequence[Run], key: str) -> tuple[float, float] | None:
    """Return a cost of two rows that was measured in the same way, by `benchmark` if it has measured both."""
    first, second = (
        {run.cost["measured"]: float(run.cost[key]) for run in runs if run.cost.get(key) is not None and matches(run)}
        for matches in (partial(_selects, claim.rows[name], study=claim.study) for name in names)
    )
    common = sorted(first.keys() & second.keys())  # `by benchmark ...` sorts after `at the start of training ...`
    return (first[common[-1]], second[common[-1]]) if common else None


def _selects(overrides: str, run: Run, study: str) -> bool:
    return run.study == study and has_overrides(run.setting, overrides)
