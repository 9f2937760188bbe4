"""Readers of a run's files. A file that is unreadable or has an unexpected shape raises UserError.

A run's folder may come from anybody. Nothing in it is executed, and sizes are limited, also those of expanded YAML.
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

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # much faster, but not in every build of PyYAML
_MAX_BYTES, _MAX_TABLE_BYTES = 16 * 2**20, 512 * 2**20
_MAX_VALUES, _MAX_DEPTH = 500_000, 60
_MAX_NUMBER, _MAX_STEP = 1e20, 10**12
_MAX_LINE = 2000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

TEXT, MAYBE_TEXT = (str,), (str, type(None))
NUMBER, MAYBE_NUMBER = (int, float), (int, float, type(None))
Shape = tuple[Any, ...] | dict[str, Any] | list[Any]
"""Expected shape of plain containers:

- a tuple of the types of a value, or of a shape and NoneType if the value may be null,
- a list with the shape of all items, or with a shape for each item,
- a dict with the shape of each key; `key?` may be missing, and `*` is any other key.
"""
_NAMES = {str: "text", int: "a number", float: "a number", type(None): "null", dict: "a mapping", list: "a list"}


def read_yaml(path: Path, shape: Shape) -> dict[str, Any]:
    """Return the content of a YAML file; an empty dict if the file is missing or empty."""
    text = read_text(path)
    if text is None:
        return {}
    try:
        content = yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(path, "YAML", error) from error
    content = {} if content is None else content
    return _validate(content, shape, path)


def read_json(path: Path, shape: Shape) -> dict[str, Any] | None:
    """Return the content of a JSON file; None if the file is missing."""
    text = read_text(path)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "JSON", error) from error
    return _validate(content, shape, path)


def read_metrics(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return steps and finite values of the metrics that a page shows, by column."""
    header, rows = _read_csv(path)
    if "step" not in header:
        return {}
    columns: dict[str, list[tuple[int, float]]] = {}
    try:
        steps = [_parse_step(row[header.index("step")]) for row in rows]
        for i, name in enumerate(header):
            if name in ("epoch", "train/loss") or name.startswith("val/"):
                values = [(step, float(row[i])) for step, row in zip(steps, rows, strict=True) if row[i]]
                columns[printable(name)] = [(step, value) for step, value in values if abs(value) < _MAX_NUMBER]
    except ValueError as error:
        raise UserError(f"{path} has an invalid value ({printable(str(error))[:80]}): remove the file") from error
    return columns


def read_line(path: Path) -> str:
    """Return the text of a file as one line, cut if it is long."""
    return printable(" ".join((read_text(path) or "")[:_MAX_LINE].split()))


def _parse_step(text: str) -> int:
    step = int(text)
    if not 0 <= step < _MAX_STEP:
        raise ValueError(f"step {text[:20]}")
    return step


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the complete rows of a CSV file, which a run may still be writing."""
    text = read_text(path, _MAX_TABLE_BYTES) or ""
    try:
        rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    except csv.Error as error:
        raise _unreadable(path, "CSV", error) from error
    header = rows[0] if rows else []
    return header, [row for row in rows[1:] if len(row) == len(header)]


def read_text(path: Path, max_bytes: int = _MAX_BYTES) -> str | None:
    """Return the text of a file; None if there is no regular file."""
    try:
        if not path.is_file():
            return None
        if (size := path.stat().st_size) > max_bytes:
            raise UserError(f"{path} has {size / 2**20:.0f} MiB, more than any run writes: remove it")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, "text", error) from error


def check_shape(value: Any, shape: Shape, path: str) -> None:
    """Raise UserError with the `path` inside the value if plain containers do not have the expected shape."""
    if isinstance(shape, tuple) and isinstance(shape[0], dict):
        if value is not None:
            check_shape(value, shape[0], path)
    elif isinstance(shape, tuple):
        fits = isinstance(value, shape) and not (isinstance(value, bool) and bool not in shape)
        if not fits:
            expected = " or ".join(dict.fromkeys(_NAMES.get(kind, kind.__name__) for kind in shape))
            raise UserError(f"{path} is {_abbreviate(value)}, not {expected}")
        if isinstance(value, (int, float)) and not -_MAX_NUMBER < value < _MAX_NUMBER:  # also true for NaN
            raise UserError(f"{path} is {_abbreviate(value)}, which is out of range")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise UserError(f"{path} is {_abbreviate(value)}, not a list")
        if len(shape) not in (1, len(value)):
            raise UserError(f"{path} has {len(value)} values, not {len(shape)}")
        for i, item in enumerate(value):
            check_shape(item, shape[0], f"{path}[{i}]")
    else:
        if not isinstance(value, dict):
            raise UserError(f"{path} is {_abbreviate(value)}, not a mapping")
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if key == "*":
                for other, item in value.items():
                    check_shape(item, inner, f"{path}.{_abbreviate(other)}")
            elif name in value:
                check_shape(value[name], inner, f"{path}.{name}")
            elif name == key:
                raise UserError(f"{path} has no {name}")


def _validate(content: Any, shape: Shape, path: Path) -> Any:
    """Return `content` as plain containers without secrets; raises UserError if it does not have the shape."""
    try:
        plain = _to_plain(content, [_MAX_VALUES], 0)
        check_shape(plain, shape, "content")
    except UserError as error:
        raise UserError(
            f"{path} is not in the format of this version ({error}): restore or remove it, or score the run again"
        ) from error
    return without_secrets(plain)


def _to_plain(value: Any, budget: list[int], depth: int) -> Any:
    """Return a copy whose keys are text, and whose values are text, numbers or None, within a `budget` of values.

    A few lines of YAML can expand to billions of values, or refer to themselves.
    """
    budget[0] -= 1
    if budget[0] < 0 or depth > _MAX_DEPTH:
        raise UserError(f"more than {_MAX_VALUES} values, or nested more than {_MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        return {printable(str(key)): _to_plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_to_plain(item, budget, depth + 1) for item in value]
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if abs(value) < _MAX_NUMBER else math.copysign(math.inf, value)
    return printable(str(value))


def printable(text: str) -> str:
    """Return `text` with replacements for characters that HTML does not allow."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _abbreviate(value: Any) -> str:
    text = " ".join(printable(str(value)).split()) if not isinstance(value, (dict, list)) else _NAMES[type(value)]
    return text if len(text) <= 40 else f"{text[:37]}..."


def _unreadable(path: Path, kind: str, error: Exception) -> UserError:
    reason = " ".join(printable(str(error) or type(error).__name__).split())
    return UserError(f"{path} cannot be read as {kind} ({reason[:200]}): restore or remove it")
