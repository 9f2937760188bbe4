"""Groups of runs that differ only in their seed, and comparisons of such groups."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.engine.hydra_job import override_key
from fastfcn_pl.evaluation.formatting import data_and_split
from fastfcn_pl.tools.report import files, run_schema
from fastfcn_pl.tools.report.runs import Run
from fastfcn_pl.tools.report.settings import format_value, has_overrides, is_machine_specific

_PUBLISHED = [key.removesuffix("?") for key in run_schema.PUBLISHED]
_MAX_TITLE_PART = 80
"""Characters of each part of a title that distinguishes two comparisons."""
_ORDER = ("finished", "running", "silent", "failed")


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of `n` values; `std` is None for a single value."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Return the spread of the values that are not None; None if there are none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


@dataclass
class Group:
    """Runs that differ only in their seed. `settings` distinguishes them from other groups."""

    settings: dict[str, str]
    runs: list[Run]
    name: str = ""
    published: list[dict[str, Any]] = field(default_factory=list)

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.results is not None]

    @property
    def counted(self) -> list[Run]:
        """Runs that the group's numbers are computed from: the finished ones, else all that have a validation score."""
        return self.finished or [run for run in self.runs if run.score is not None]

    @property
    def kind(self) -> str:
        """State of the run that got furthest."""
        return min((run.state.kind for run in self.runs), key=_ORDER.index)

    @property
    def best(self) -> Run:
        """Run with the best score, which represents the group in pictures and costs."""
        return max(self.counted or self.runs, key=lambda run: -1.0 if run.score is None else run.score)

    def spread(self, of: Callable[[Run], float | None]) -> Spread | None:
        return Spread.of(of(run) for run in self.counted)

    def counts_of(self, seeds: Sequence[int]) -> np.ndarray:
        """Return the pixel counts `(S, N, 3, C)` of the finished runs with these seeds, one of each."""
        by_seed = {run.seed: run.counts for run in self.finished}
        return np.stack([counts.counts for seed in seeds if (counts := by_seed[seed]) is not None])

    @property
    def score(self) -> Spread | None:
        return self.spread(lambda run: run.score)


@dataclass
class Comparison:
    """Groups with comparable scores (same data set, split and protocol), best first."""

    title: str
    groups: list[Group]
    keys: list[str]
    """Settings that distinguish the groups."""


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Return the comparisons that `runs` allow, those with the most runs first."""
    sets: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.results is not None:
            sets.setdefault(_scoring_key(run, run.results), []).append(run)
    for run in runs:
        if run.results is None:  # it will be scored like finished runs with the same data and protocol
            key = _config_key(run)
            matches = [
                k for k, members in sets.items() if _config_key(members[0]) == key and _may_join(run, members[0])
            ]
            sets.setdefault(matches[0] if matches else (f"{key[0]} val", *key[1:], "", ""), []).append(run)
    comparisons = [_comparison(key, members, sets) for key, members in sets.items()]
    return sorted(comparisons, key=lambda comparison: -sum(len(group.runs) for group in comparison.groups))


def _scoring_key(run: Run, results: dict[str, Any]) -> tuple[str, ...]:
    """Return what two scores must have in common to be comparable."""
    options = json.dumps(results["protocol_options"], sort_keys=True) if results["protocol_options"] else ""
    classes = f"classes {', '.join(results['IoU'])}"
    return data_and_split(results), results["protocol"], _task(run), options, f"{results['images']} images", classes


def _may_join(run: Run, other: Run) -> bool:
    """Tell whether the classes of an unfinished run are among those of `other`."""
    return set(run.iou) <= set(other.iou)


def _config_key(run: Run) -> tuple[str, ...]:
    """Return data and protocol from the configuration, which an unfinished run has, too."""
    protocol = {k: v for k, v in run.config["protocol"].items() if k != "_partial_"}
    name = str(protocol.pop("_target_")).rsplit(".", 1)[-1]
    return (
        run.config["data"].get("name") or run.choices.get("data", "data"),
        name,
        _task(run),
        json.dumps(protocol, sort_keys=True, default=str),
    )


def _task(run: Run) -> str:
    """Describe what the network was trained for, if that is not segmentation."""
    fitted = str(run.setting("model._target_")).endswith(".Approximation")
    return "features of the dilated twin" if fitted else ""


def _comparison(key: tuple[str, ...], runs: list[Run], sets: Iterable[tuple[str, ...]]) -> Comparison:
    title = f"{key[0]}, protocol {key[1]}"
    same_title = [other for other in sets if other[:2] == key[:2]]
    if len(same_title) > 1:
        parts = [part for i, part in enumerate(key[2:], 2) if part and len({other[i] for other in same_title}) > 1]
        for part in parts:
            title += f", {part if len(part) <= _MAX_TITLE_PART else f'{part[:_MAX_TITLE_PART]}...'}"
    keys = distinguishing_keys(runs)
    groups: dict[tuple[str | None, ...], Group] = {}
    for run in runs:
        values = tuple(run.setting(k) for k in keys)
        settings = {k: v or "-" for k, v in zip(keys, values, strict=True)}
        groups.setdefault(values, Group(settings, [])).runs.append(run)
    for group in groups.values():
        group.runs.sort(key=lambda run: run.seed)
        group.name = _name(group.settings) or runs[0].study
        group.published = [
            row for row in published(group.runs) if has_overrides(group.runs[0].setting, str(row.get("run") or ""))
        ]
    return Comparison(title, sorted(groups.values(), key=_rank), keys)


def _rank(group: Group) -> tuple[int, float]:
    return _ORDER.index(group.kind), -(group.score.mean if group.score else -1.0)


def _name(settings: dict[str, str]) -> str:
    """Return a short name: options without their group, values with the last component of their key."""
    return ", ".join(
        value if key == "study" or "/" in key or "." not in key else f"{key.rsplit('.', 1)[-1]} {value}"
        for key, value in settings.items()
    )


def distinguishing_keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys of the settings that distinguish `runs`, without the seed and without redundant keys.

    The study and overrides come first. Options that these select, and values in edited files, are added only if they
    distinguish runs that would otherwise look the same.
    """
    explicit = dict.fromkeys(["study", *(override_key(override) for run in runs for override in run.overrides)])
    options = dict.fromkeys(key for run in runs for key in run.choices)
    keys = [key for key in explicit if not _is_ignored(key) and _count_distinct(runs, [key]) > 1]
    distinct = _count_distinct(runs, keys)
    for key in [*options, *differences(runs)]:
        if not _is_ignored(key) and _count_distinct(runs, [*keys, key]) > distinct:
            keys.append(key)
            distinct = _count_distinct(runs, keys)
    return keys


def _count_distinct(runs: Sequence[Run], keys: Sequence[str]) -> int:
    return len({tuple(run.setting(key) for key in keys) for run in runs})


def _is_ignored(key: str) -> bool:
    return key in ("seed", "question", "published", "baseline", "margin") or is_machine_specific(key)


def differences(runs: Sequence[Run]) -> dict[str, dict[str, int]]:
    """Return the settings that differ between `runs`, each with the number of runs per value."""
    settings = [{**run.choices, **dict(_flatten(run.config))} for run in runs]
    differing: dict[str, dict[str, int]] = {}
    for key in dict.fromkeys(key for values in settings for key in values):
        counts = Counter(values.get(key, "-") for values in settings)
        if len(counts) > 1 and not _is_ignored(key):
            differing[key] = dict(counts)
    return differing


def _flatten(node: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", format_value(value)


def common(runs: Sequence[Run]) -> dict[str, str]:
    """Return the options and overridden values that all `runs` share, without options inside other options."""
    overridden = [override_key(override) for override in runs[0].overrides]
    keys = dict.fromkeys([*(key for key in runs[0].choices if "@" not in key), *overridden])
    values_of_key = {key: {run.setting(key) for run in runs} for key in keys if not _is_ignored(key)}
    shared = {key: values.pop() for key, values in values_of_key.items() if len(values) == 1}
    return {key: value for key, value in shared.items() if value is not None}


def published(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the published results in the studies of `runs`, without duplicates."""
    rows = [row for run in runs for row in check_published(run.config.get("published") or [], run.study)]
    return [row for i, row in enumerate(rows) if row not in rows[:i]]


def check_published(rows: Any, study: str) -> list[dict[str, Any]]:
    """Return the rows of a study's `published`; raises UserError for an unknown key or a wrong type."""
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{study}: published: a row is a mapping, such as {{run: model/neck=jpu, mIoU: 51.05}}")
        for key in row:
            if key not in _PUBLISHED:
                raise UserError(f"{study}: published has no {key}; {suggest(str(key), _PUBLISHED)}")
        files.check_shape(row, run_schema.PUBLISHED, f"{study}: published[{i}]")
    return list(rows)
