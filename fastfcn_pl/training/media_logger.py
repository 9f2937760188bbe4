"""Interface of loggers that keep pictures, tables and files beside scalars, as W&B does."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger


class MediaLogger(Logger):
    """Logger of one run; callbacks call it on rank 0 only.

    A run is identified by an `id` of our own, which a resumed run keeps, so that both log to the same place.
    """

    title: str
    """Name of the product."""

    @abstractmethod
    def log_picture(self, key: str, pixels: np.ndarray, step: int) -> None:
        """Log a uint8 image `(H, W, 3)`."""

    @abstractmethod
    def log_rows(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table."""

    @abstractmethod
    def log_facts(self, values: Mapping[str, Any], step: int) -> None:
        """Log facts about the whole run; later values replace earlier ones."""

    @abstractmethod
    def log_file(self, path: Path, name: str) -> None:
        """Keep a copy of a file, such as the best checkpoint."""

    @property
    @abstractmethod
    def view(self) -> str:
        """URL that shows the run, or command that does."""
