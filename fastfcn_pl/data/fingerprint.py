"""Fingerprint of a data set, to compare the data of two runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass

from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.data.dataset import Source

_MAX_SIZES = 1000  # pairs of a split whose file sizes are read; all of them may take minutes on a network disk


def fingerprint(spec: DatasetSpec, sources: Mapping[str, Source]) -> str:
    """Return 16 hexadecimal digits that depend on the classes and on the images of the splits in `sources`.

    Files enter by their paths relative to the split's common folder, and by the sizes of a thousand of them, evenly
    spread. Generated images enter by their parameters. A change inside a file of the same size goes unnoticed.
    """
    digest = hashlib.sha256(repr((spec.name, spec.classes, sorted(spec.labels.items()))).encode())
    if spec.bands is not None:
        digest.update(repr(spec.bands.files).encode())
    for split, source in sorted(sources.items()):
        digest.update(f"\0{split} {len(source)}".encode())
        paths = [str(path) for index in range(len(source)) for path in source.files(index)]
        if not paths and is_dataclass(source) and not isinstance(source, type):
            digest.update(f"{type(source).__name__} {sorted(asdict(source).items())}".encode())
            continue
        root = os.path.commonpath(paths) if paths else ""
        digest.update("\0".join(path[len(root) :] for path in paths).encode())
        step = len(paths) // (2 * _MAX_SIZES) | 1  # an odd step reaches both images and masks
        sizes = [os.path.getsize(path) for path in paths[::step]]
        digest.update(repr(sizes).encode())
    return digest.hexdigest()[:16]
