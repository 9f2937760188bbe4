"""The file `metrics.csv` of a run, of which a kill at any moment loses nothing that was saved."""

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
    """Lightning's writer, for a file that is already there and for runs that are killed.

    The file is only ever added to, or replaced in one step. A row that is logged twice, with the same step and the same
    columns, stands there once: the rows of the newest step stay in `metrics` after they are saved.
    """

    _settled_rows: int
    """Rows of the file that stay as they are."""
    _settled: int
    """Their size, with the header, in bytes; 0 if there is no file."""
    _tail: bytes
    """Rows of the newest step, which follow them."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._path = Path(self.metrics_file_path)
        self.rewind(sys.maxsize)

    def _check_log_dir_exists(self) -> None:
        """Leave alone what Lightning would warn of and delete."""

    def rewind(self, step: int) -> None:
        """Keep only the rows before `step`; a run that was killed may also have left half of a line."""
        content = self._path.read_bytes() if self._path.is_file() else b""
        rows = [row for row in _rows(content[: content.rfind(b"\n") + 1]) if int(row["step"]) < step]
        columns = sorted({key for row in rows for key, value in row.items() if value})
        kept = _text(rows, columns, header=True) if rows else b""
        if not rows:
            self._path.unlink(missing_ok=True)
        elif kept != content:
            self._replace(kept)
        self.metrics, self.metrics_keys = [], columns
        self._settled_rows, self._settled, self._tail = len(rows), len(kept), b""

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
        """Write what was logged. Being interrupted in the middle, it can be called again, and writes each row once."""
        if not self.metrics:
            return
        if not self._path.parent.is_dir() or (self._settled and not self._path.is_file()):
            raise UserError(
                f"{self._path} is gone: the folder of a run has to stay where it is while the run is at work; move it "
                "back and go on with checkpoint=<its checkpoints/last.ckpt>, or start anew"
            )
        newest = self.metrics[-1]["step"]
        older = next(i for i in range(len(self.metrics), -1, -1) if i == 0 or self.metrics[i - 1]["step"] != newest)
        columns = sorted(set(self.metrics_keys).union(*self.metrics))
        settled, tail = _text(self.metrics[:older], columns), _text(self.metrics[older:], columns)
        if columns != self.metrics_keys:
            rows = _rows(self._path.read_bytes())[: self._settled_rows] if self._settled else []
            kept = _text(rows, columns, header=True)
            self._replace(kept + settled + tail)
            self._settled = len(kept)
        elif (settled + tail).startswith(self._tail):
            self._append(self._settled + len(self._tail), (settled + tail)[len(self._tail) :])
        else:
            self._replace(self._path.read_bytes()[: self._settled] + settled + tail)
        self.metrics, self.metrics_keys = self.metrics[older:], columns
        self._settled_rows, self._settled, self._tail = self._settled_rows + older, self._settled + len(settled), tail

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
    table = csv.DictWriter(text, columns, extrasaction="ignore")  # what `rewind` leaves out is empty
    if header:
        table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()
