"""Reading back what an offline W&B run recorded: the framing of its `.wandb` file, and wandb's own messages in it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_HEADER, _BLOCK = 7, 32768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(folder: Path) -> Iterator[Any]:
    """Yield the records of the one run below `folder` (LevelDB's log format behind a header of seven bytes)."""
    (file,) = folder.rglob("run-*.wandb")
    data, position, parts = file.read_bytes(), _HEADER, b""
    while position + _HEADER <= len(data):
        room = _BLOCK - position % _BLOCK
        if room < _HEADER:
            position += room
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + _HEADER])
        parts += data[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def history(folder: Path) -> dict[str, list[Any]]:
    """Return the logged values of each key, in order."""
    found: dict[str, list[Any]] = {}
    for record in records(folder):
        for item in record.history.item if record.HasField("history") else ():
            key = item.key or ".".join(item.nested_key)
            found.setdefault(key, []).append(json.loads(item.value_json))
    return found


def exit_code(folder: Path) -> int | None:
    """Return the exit code that the run was closed with, None where it was not."""
    codes = [record.exit.exit_code for record in records(folder) if record.HasField("exit")]
    return codes[-1] if codes else None


def config(folder: Path) -> dict[str, Any]:
    """Return the configuration that the run started with."""
    for record in records(folder):
        if record.HasField("run"):
            return {update.key: json.loads(update.value_json) for update in record.run.config.update}
    return {}


def added_config(folder: Path) -> dict[str, Any]:
    """Return the last state of what was added to the configuration, W&B's own entries included."""
    found: dict[str, Any] = {}
    for item in (item for record in of_kind(folder, "config") for item in record.update):
        *path, name = item.nested_key or [item.key]
        place = found
        for key in path:
            place = place.setdefault(key, {})
        value = json.loads(item.value_json)
        place[name] = {**place.get(name, {}), **value} if isinstance(value, dict) else value
    return found


def summary(folder: Path) -> dict[str, Any]:
    """Return the last value of each key of the summary."""
    found: dict[str, Any] = {}
    for record in records(folder):
        for item in record.summary.update if record.HasField("summary") else ():
            found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return found


def of_kind(folder: Path, kind: str) -> list[Any]:
    """Return the records of one kind, such as `run`, `alert` or `artifact`, in order."""
    return [getattr(record, kind) for record in records(folder) if record.HasField(kind)]


def files(folder: Path) -> set[str]:
    """Return the paths of the files that belong to the run, below its folder `files`."""
    return {item.path for record in of_kind(folder, "files") for item in record.files}
