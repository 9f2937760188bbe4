"""Decoded images and masks, kept in a folder: reading them anew takes a fifth of the time of decoding."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib.format import read_array

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.image_files import FileSource


@dataclass
class CachedSource:
    """A source that decodes each pair once, whichever worker, rank or run reads it first, into a file in `folder`.

    What is changed in the original files, or in how they are read, is decoded anew. Where the folder's disk (or memory:
    `/dev/shm`) is full, the rest is read as without a cache. Raises UserError where there can be no such folder.
    """

    source: FileSource
    folder: Path

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"data.loader.cache={self.folder} cannot be made ({error.strerror}): name a folder to write to, or null"
            ) from error
        self._reader = pickle.dumps(replace(self.source, pairs=[]))
        self._full = False

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def files(self, index: int) -> tuple[Path, ...]:
        return self.source.files(index)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        file = self.folder / f"{self._key(index)}.npy"
        if (kept := _kept(file)) is not None:
            return kept
        image, ids = self.source.read(index)
        if not self._full:
            self._keep(file, image, ids)
        return image, ids

    def _key(self, index: int) -> str:
        """Return a name for how the pair is read, and for what is in its files by their times and sizes."""
        stats = [(str(path.absolute()), path.stat()) for path in self.files(index) if path.exists()]
        known = self._reader + repr([(name, stat.st_mtime_ns, stat.st_size) for name, stat in stats]).encode()
        return hashlib.sha256(known).hexdigest()[:32]

    def _keep(self, file: Path, image: np.ndarray, ids: np.ndarray) -> None:
        """Write a whole file or none: others may read it at any time."""
        part = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as opened:
                part = opened.name
                np.save(opened, image)
                np.save(opened, ids)
            os.replace(part, file)
        except OSError as error:
            if part is not None:
                Path(part).unlink(missing_ok=True)
            self._full = True
            warnings.warn(
                f"data.loader.cache={self.folder} takes no more ({error.strerror}): the rest is decoded each time",
                stacklevel=2,
            )


def _kept(file: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the pair in a file; None where it is not there, or damaged, as a crash of the machine may leave it."""
    try:
        with file.open("rb") as pair:
            image, ids = read_array(pair), read_array(pair)  # not np.load, which takes other files, too
            return image, ids
    except (OSError, ValueError, EOFError, MemoryError):
        return None
