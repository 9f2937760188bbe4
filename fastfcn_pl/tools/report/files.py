"""Files of a run, read whole; one that cannot be read, or does not look like a run's, is a mistake in one line.

A folder may come from anybody: nothing in it is run, followed to other places or expanded without end.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fastfcn_pl.core.redaction import without_secrets
from fastfcn_pl.core.types import UserError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
_LARGEST = 16 * 2**20
_LARGEST_TABLE = 512 * 2**20
_MOST_VALUES, _DEEPEST = 500_000, 60
_LARGEST_NUMBER = 1e20
_MOST_STEPS, _LONGEST_LINE = 10**12, 2000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

TEXT, MAYBE_TEXT = (str,), (str, type(None))
NUMBER, MAYBE_NUMBER = (int, float), (int, float, type(None))
Shape = tuple[Any, ...] | dict[str, Any] | list[Any]
"""Types of a value; or a shape and None; or that of each item of a list, or of several items; or those of the keys of a
mapping, of which `key?` may be missing and `*` stands for any."""
_NAMES = {str: "a text", int: "a number", float: "a number", type(None): "null", dict: "a mapping", list: "a list"}


def read_yaml(path: Path, shape: Shape) -> dict[str, Any]:
    """Return what a YAML file holds; an empty dict where there is no file, or an empty one."""
    text = read_text(path)
    if text is None:
        return {}
    try:
        content = yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(path, "YAML", error) from error
    content = {} if content is None else content
    return _checked(content, shape, path)


def read_json(path: Path, shape: Shape) -> dict[str, Any] | None:
    """Return what a JSON file holds; None where there is no file."""
    text = read_text(path)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "JSON", error) from error
    return _checked(content, shape, path)


def read_metrics(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return steps and finite values by the columns of a run's metrics that a page shows."""
    header, rows = _table(path)
    if "step" not in header:
        return {}
    columns: dict[str, list[tuple[int, float]]] = {}
    try:
        steps = [_step(row[header.index("step")]) for row in rows]
        for i, name in enumerate(header):
            if name in ("epoch", "train/loss") or name.startswith("val/"):
                values = [(step, float(row[i])) for step, row in zip(steps, rows, strict=True) if row[i]]
                columns[printable(name)] = [(step, value) for step, value in values if abs(value) < _LARGEST_NUMBER]
    except ValueError as error:
        raise UserError(f"{path} holds what no run logs ({printable(str(error))[:80]}): remove it") from error
    return columns


def read_line(path: Path) -> str:
    """Return the text of a file in one line, of a long one the beginning."""
    return printable(" ".join((read_text(path) or "")[:_LONGEST_LINE].split()))


def _step(text: str) -> int:
    step = int(text)
    if not 0 <= step < _MOST_STEPS:
        raise ValueError(f"step {text[:20]}")
    return step


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV file, so far as they are whole: a last line may be half-written."""
    text = read_text(path, _LARGEST_TABLE) or ""
    try:
        rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    except csv.Error as error:
        raise _unreadable(path, "CSV", error) from error
    header = rows[0] if rows else []
    return header, [row for row in rows[1:] if len(row) == len(header)]


def read_text(path: Path, largest: int = _LARGEST) -> str | None:
    """Return the text of a file; None where there is no file. A pipe or a device is none."""
    try:
        if not path.is_file():
            return None
        if (size := path.stat().st_size) > largest:
            raise UserError(f"{path} has {size / 2**20:.0f} MiB, more than a run writes: remove it")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, "text", error) from error


def checked(value: Any, shape: Shape, place: str) -> None:
    """Raise UserError if plain containers have another shape, and say where."""
    if isinstance(shape, tuple) and isinstance(shape[0], dict):
        if value is not None:
            checked(value, shape[0], place)
    elif isinstance(shape, tuple):
        fits = isinstance(value, shape) and not (isinstance(value, bool) and bool not in shape)
        if not fits:
            wanted = " or ".join(dict.fromkeys(_NAMES.get(kind, kind.__name__) for kind in shape))
            raise UserError(f"{place} is {_short(value)}, not {wanted}")
        if isinstance(value, (int, float)) and not -_LARGEST_NUMBER < value < _LARGEST_NUMBER:  # NaN is not, either
            raise UserError(f"{place} is {_short(value)}, which no run writes")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise UserError(f"{place} is {_short(value)}, not a list")
        if len(shape) not in (1, len(value)):
            raise UserError(f"{place} has {len(value)} values, not {len(shape)}")
        for i, item in enumerate(value):
            checked(item, shape[0], f"{place}[{i}]")
    else:
        if not isinstance(value, dict):
            raise UserError(f"{place} is {_short(value)}, not a mapping")
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if key == "*":
                for other, item in value.items():
                    checked(item, inner, f"{place}.{_short(other)}")
            elif name in value:
                checked(value[name], inner, f"{place}.{name}")
            elif name == key:
                raise UserError(f"{place} has no {name}")


def _checked(content: Any, shape: Shape, path: Path) -> Any:
    try:
        plain = _plain(content, [_MOST_VALUES], 0)
        checked(plain, shape, "it")
    except UserError as error:
        raise UserError(
            f"{path} is not as this version writes it: {error}: restore or remove it, or score the run again"
        ) from error
    return without_secrets(plain)


def _plain(value: Any, budget: list[int], depth: int) -> Any:
    """Return a copy with texts for keys and for what is no number, within a `budget` of values.

    A few lines of YAML can stand for billions of values, or for one that holds itself.
    """
    budget[0] -= 1
    if budget[0] < 0 or depth > _DEEPEST:
        raise UserError(f"it holds more than {_MOST_VALUES} values, or is nested more than {_DEEPEST} deep")
    if isinstance(value, Mapping):
        return {printable(str(key)): _plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item, budget, depth + 1) for item in value]
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if abs(value) < _LARGEST_NUMBER else math.copysign(math.inf, value)
    return printable(str(value))


def printable(text: str) -> str:
    """Return `text` without characters that a page cannot hold."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _short(value: Any) -> str:
    text = " ".join(printable(str(value)).split()) if not isinstance(value, (dict, list)) else _NAMES[type(value)]
    return text if len(text) <= 40 else f"{text[:37]}..."


def _unreadable(path: Path, kind: str, error: Exception) -> UserError:
    reason = " ".join(printable(str(error) or type(error).__name__).split())
    return UserError(f"{path} cannot be read as {kind} ({reason[:200]}): restore or remove it")
