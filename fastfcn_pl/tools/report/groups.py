"""Which runs may be compared, what tells them apart, and which differ by their seed alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.evaluation.formatting import data_and_split
from fastfcn_pl.tools.report import files, run_schema
from fastfcn_pl.tools.report.runs import Run, key_of, of_one_machine, shown

_PUBLISHED = [key.removesuffix("?") for key in run_schema.PUBLISHED]
_LONGEST_PART = 80
"""The most characters of what makes two comparisons differ."""
_ORDER = ("finished", "running", "silent", "failed")


@dataclass(frozen=True)
class Spread:
    """The mean of `n` values and, of several, their sample standard deviation."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Return the spread of those that are there; None of none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


@dataclass
class Group:
    """Runs that differ by their seed alone. `settings` is what tells them from other groups."""

    settings: dict[str, str]
    runs: list[Run]
    name: str = ""
    published: list[dict[str, Any]] = field(default_factory=list)

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.results is not None]

    @property
    def counted(self) -> list[Run]:
        """The runs that its numbers are of: the finished ones, where there are none all that have begun to learn."""
        return self.finished or [run for run in self.runs if run.score is not None]

    @property
    def kind(self) -> str:
        """The state of the one that came furthest."""
        return min((run.state.kind for run in self.runs), key=_ORDER.index)

    @property
    def best(self) -> Run:
        """The run that is shown where there is room for one."""
        return max(self.counted or self.runs, key=lambda run: -1.0 if run.score is None else run.score)

    def spread(self, of: Callable[[Run], float | None]) -> Spread | None:
        return Spread.of(of(run) for run in self.counted)

    @property
    def score(self) -> Spread | None:
        return self.spread(lambda run: run.score)


@dataclass
class Comparison:
    """Groups whose numbers may be ranked against each other: one data set, one split, one protocol, best first."""

    title: str
    groups: list[Group]
    keys: list[str]
    """The settings that tell its groups apart."""


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Return the comparisons that `runs` allow, those of most runs first."""
    sets: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.results is not None:
            sets.setdefault(_measure(run.results), []).append(run)
    for run in runs:
        if run.results is None:  # it will be scored as the finished ones are that have its data and protocol
            asked = _asked(run)
            alike = [key for key, members in sets.items() if _asked(members[0]) == asked and _may_join(run, members[0])]
            sets.setdefault(alike[0] if alike else (f"{asked[0]} val", *asked[1:], "", ""), []).append(run)
    found = [_comparison(key, members, sets) for key, members in sets.items()]
    return sorted(found, key=lambda comparison: -sum(len(group.runs) for group in comparison.groups))


def _measure(results: dict[str, Any]) -> tuple[str, ...]:
    """Return what two scores must have in common to be compared."""
    options = json.dumps(results["protocol_options"], sort_keys=True) if results["protocol_options"] else ""
    classes = f"classes {', '.join(results['IoU'])}"
    return data_and_split(results), results["protocol"], options, f"{results['images']} images", classes


def _may_join(run: Run, other: Run) -> bool:
    """Tell whether a run that is not finished knows no class that `other` does not."""
    return set(run.iou) <= set(other.iou)


def _asked(run: Run) -> tuple[str, ...]:
    """Return data and protocol as the configuration has them, which a run has before its score."""
    protocol = {k: v for k, v in run.config["protocol"].items() if k != "_partial_"}
    name = str(protocol.pop("_target_")).rsplit(".", 1)[-1]
    return (
        run.config["data"].get("name") or run.choices.get("data", "data"),
        name,
        json.dumps(protocol, sort_keys=True, default=str),
    )


def _comparison(key: tuple[str, ...], runs: list[Run], sets: Iterable[tuple[str, ...]]) -> Comparison:
    title = f"{key[0]}, protocol {key[1]}"
    alike = [other for other in sets if other[:2] == key[:2]]
    if len(alike) > 1:  # say what else differs
        parts = [part for i, part in enumerate(key[2:], 2) if part and len({other[i] for other in alike}) > 1]
        title += "".join(f", {part if len(part) <= _LONGEST_PART else f'{part[:_LONGEST_PART]}...'}" for part in parts)
    keys = distinguishing(runs)
    groups: dict[tuple[str | None, ...], Group] = {}
    for run in runs:
        values = tuple(run.setting(k) for k in keys)
        settings = {k: v or "-" for k, v in zip(keys, values, strict=True)}
        groups.setdefault(values, Group(settings, [])).runs.append(run)
    for group in groups.values():
        group.runs.sort(key=lambda run: run.seed)
        group.name = _name(group.settings) or runs[0].study
        group.published = [row for row in published(group.runs) if _matches(row, group.runs[0])]
    return Comparison(title, sorted(groups.values(), key=_rank), keys)


def _rank(group: Group) -> tuple[int, float]:
    return _ORDER.index(group.kind), -(group.score.mean if group.score else -1.0)


def _name(settings: dict[str, str]) -> str:
    """Return a short name: an option by itself, a value with the end of its key."""
    of_groups = [key == "study" or "/" in key or "." not in key for key in settings]
    return ", ".join(
        value if alone else f"{key.rsplit('.', 1)[-1]} {value}"
        for alone, (key, value) in zip(of_groups, settings.items(), strict=True)
    )


def distinguishing(runs: Sequence[Run]) -> list[str]:
    """Return the settings that tell `runs` apart, but for the seed; those that add nothing to others are left out.

    What somebody asked for comes first: the study, then overrides. Options that these brought with them, and values in
    edited files, follow only where runs would be the same without them.
    """
    asked = dict.fromkeys(["study", *(key_of(override) for run in runs for override in run.overrides)])
    options = dict.fromkeys(key for run in runs for key in run.choices)
    keys = [key for key in asked if not _left_out(key) and _classes(runs, [key]) > 1]
    classes = _classes(runs, keys)
    for key in [*options, *_leaves(runs)]:
        if not _left_out(key) and _classes(runs, [*keys, key]) > classes:
            keys.append(key)
            classes = _classes(runs, keys)
    return keys


def _classes(runs: Sequence[Run], keys: Sequence[str]) -> int:
    return len({tuple(run.setting(key) for key in keys) for run in runs})


def _left_out(key: str) -> bool:
    return key in ("seed", "question", "published", "init_from") or of_one_machine(key)


def _leaves(runs: Sequence[Run]) -> list[str]:
    """Return the dotted paths of all values that are not the same in all runs."""
    return [key for key, values in differences(runs).items() if len(values) > 1]


def differences(runs: Sequence[Run]) -> dict[str, dict[str, int]]:
    """Return, of each setting that differs between `runs`, how many of them have which value."""
    flat = [{**run.choices, **dict(_flat(run.config))} for run in runs]
    found: dict[str, dict[str, int]] = {}
    for key in dict.fromkeys(key for values in flat for key in values):
        counts: dict[str, int] = {}
        for values in flat:
            value = values.get(key, "-")
            counts[value] = counts.get(value, 0) + 1
        if len(counts) > 1 and not _left_out(key):
            found[key] = counts
    return found


def _flat(node: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", shown(value)


def common(runs: Sequence[Run]) -> dict[str, str]:
    """Return the options, but for those inside of others, and the values asked for, which all of `runs` share."""
    asked = [key_of(override) for override in runs[0].overrides]
    keys = dict.fromkeys([*(key for key in runs[0].choices if "@" not in key), *asked])
    shared = {key: {run.setting(key) for run in runs} for key in keys if not _left_out(key)}
    return {key: value for key, values in shared.items() if len(values) == 1 and (value := values.pop()) is not None}


def published(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the published numbers that the studies of `runs` give, each once."""
    rows = [row for run in runs for row in checked(run.config.get("published") or [], run.study)]
    return [row for i, row in enumerate(rows) if row not in rows[:i]]


def checked(rows: Any, study: str) -> list[dict[str, Any]]:
    """Return `rows` of a study's `published`; raises UserError where one holds what is not known."""
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{study}: published: a row is a mapping, such as {{run: model/neck=jpu, mIoU: 51.05}}")
        for key in row:
            if key not in _PUBLISHED:
                raise UserError(f"{study}: published has no {key}; {suggest(str(key), _PUBLISHED)}")
        files.checked(row, run_schema.PUBLISHED, f"{study}: published[{i}]")
    return list(rows)


def _matches(row: dict[str, Any], run: Run) -> bool:
    """Tell whether a published row is about what `run` did: it has all that the row asks for."""
    wanted = [override.partition("=") for override in str(row.get("run") or "").split()]
    return all(run.setting(key_of(key)) == value for key, _, value in wanted)
