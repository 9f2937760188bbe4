"""Crash-safe writer of `metrics.csv`: a kill at any moment loses no saved row."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from fastfcn_pl.core.atomic_io import atomic_write, disk_errors_reported
from fastfcn_pl.core.types import UserError


class MetricsWriter(ExperimentWriter):
    """Lightning's CSV writer, extended to append to an existing file and to survive a kill.

    The file is only appended to or replaced atomically. A row that repeats the step and the columns of an earlier one
    replaces it. Rows of the newest step may still change, so they stay in `metrics` after they are saved.
    """

    _final_rows: int
    """Number of rows in the file that no longer change."""
    _final_size: int
    """Size of those rows and the header in bytes; 0 if there is no file."""
    _tail: bytes
    """Rows of the newest step, which follow the final ones in the file."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._path = Path(self.metrics_file_path)
        self.rewind(sys.maxsize)

    def _check_log_dir_exists(self) -> None:
        """Keep the existing file; Lightning would warn and delete it."""

    def rewind(self, step: int) -> None:
        """Drop the rows of `step` and later, and a truncated last line that a killed run may have left."""
        content = self._path.read_bytes() if self._path.is_file() else b""
        rows = [row for row in _rows(content[: content.rfind(b"\n") + 1]) if int(row["step"]) < step]
        columns = sorted({key for row in rows for key, value in row.items() if value})
        kept = _text(rows, columns, header=True) if rows else b""
        if not rows:
            self._path.unlink(missing_ok=True)
        elif kept != content:
            self._replace(kept)
        self.metrics, self.metrics_keys = [], columns
        self._final_rows, self._final_size, self._tail = len(rows), len(kept), b""

    def log_hparams(self, params: dict[str, Any]) -> None:
        self.hparams.update(params)
        with atomic_write(Path(self.log_dir, self.NAME_HPARAMS_FILE)) as hidden:
            save_hparams_to_yaml(hidden, self.hparams)

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics_dict, step)
        row = self.metrics.pop()
        for i in reversed(range(len(self.metrics))):
            if self.metrics[i]["step"] != row["step"]:
                break
            if self.metrics[i].keys() == row.keys():
                self.metrics[i] = row
                return
        self.metrics.append(row)

    def save(self) -> None:
        """Write the logged rows. If interrupted, it can be called again and still writes each row once."""
        if not self.metrics:
            return
        if not self._path.parent.is_dir() or (self._final_size and not self._path.is_file()):
            raise UserError(
                f"{self._path} is gone: a run's folder must not be moved or deleted during the run; move it back and "
                "resume with resume=<its checkpoints/last.ckpt>, or start a new run"
            )
        newest = self.metrics[-1]["step"]
        older = next(i for i in range(len(self.metrics), -1, -1) if i == 0 or self.metrics[i - 1]["step"] != newest)
        columns = sorted(set(self.metrics_keys).union(*self.metrics))
        final, tail = _text(self.metrics[:older], columns), _text(self.metrics[older:], columns)
        if columns != self.metrics_keys:
            rows = _rows(self._path.read_bytes())[: self._final_rows] if self._final_size else []
            kept = _text(rows, columns, header=True)
            self._replace(kept + final + tail)
            self._final_size = len(kept)
        elif (final + tail).startswith(self._tail):
            self._append(self._final_size + len(self._tail), (final + tail)[len(self._tail) :])
        else:
            self._replace(self._path.read_bytes()[: self._final_size] + final + tail)
        self.metrics, self.metrics_keys = self.metrics[older:], columns
        self._final_rows, self._final_size, self._tail = self._final_rows + older, self._final_size + len(final), tail

    def _append(self, size: int, text: bytes) -> None:
        """Write `text` after the first `size` bytes of the file."""
        with disk_errors_reported(self._path), self._path.open("r+b") as file:
            file.seek(size)
            file.write(text)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())

    def _replace(self, content: bytes) -> None:
        with atomic_write(self._path) as hidden:
            hidden.write_bytes(content)


def _rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def _text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], header: bool = False) -> bytes:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, extrasaction="ignore")  # `rewind` drops columns that became empty
    if header:
        table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()
