"""Cache of decoded images and masks in a folder, which is faster than decoding them in every epoch."""

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
    """A source that decodes each pair once and stores it as a file in `folder`, shared by workers, ranks and runs.

    A pair is decoded again if its original files or the options of reading change. If the disk of `folder`, or the
    memory for `/dev/shm`, is full, the rest is read without the cache. Raises UserError if `folder` cannot be created.
    """

    source: FileSource
    folder: Path

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"data.loader.cache={self.folder} cannot be created ({error.strerror}): name a writable folder, or null"
            ) from error
        self._reader_key = pickle.dumps(replace(self.source, pairs=[]))
        self._full = False

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def files(self, index: int) -> tuple[Path, ...]:
        return self.source.files(index)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        file = self.folder / f"{self._key(index)}.npy"
        if (cached := _load(file)) is not None:
            return cached
        image, ids = self.source.read(index)
        if not self._full:
            self._store(file, image, ids)
        return image, ids

    def _key(self, index: int) -> str:
        """Return a hash of the reading options and of the path, time and size of the pair's files."""
        stats = [(str(path.absolute()), path.stat()) for path in self.files(index) if path.exists()]
        content = self._reader_key + repr([(name, stat.st_mtime_ns, stat.st_size) for name, stat in stats]).encode()
        return hashlib.sha256(content).hexdigest()[:32]

    def _store(self, file: Path, image: np.ndarray, ids: np.ndarray) -> None:
        """Write a file atomically, since other processes may read it at any time."""
        part = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as stream:
                part = stream.name
                np.save(stream, image)
                np.save(stream, ids)
            os.replace(part, file)
        except OSError as error:
            if part is not None:
                Path(part).unlink(missing_ok=True)
            self._full = True
            warnings.warn(
                f"data.loader.cache={self.folder} is not writable ({error.strerror}): the rest is decoded every epoch",
                stacklevel=2,
            )


def _load(file: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the pair in a file; None if it is missing or damaged, for example by a crash of the machine."""
    try:
        with file.open("rb") as stream:
            image, ids = read_array(stream), read_array(stream)  # np.load would accept other formats
            return image, ids
    except (OSError, ValueError, EOFError, MemoryError):
        return None
