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
