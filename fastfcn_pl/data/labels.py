"""From the ids in label files to class indices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastfcn_pl.contracts import IGNORE, DatasetSpec


def label_table(spec: DatasetSpec) -> np.ndarray:
    """Return the int16 table `(256,)` from an 8-bit id to a class index, `IGNORE`, or -1 for no such id."""
    return look_up(np.arange(256), spec.labels)


def look_up(ids: np.ndarray, labels: Mapping[int, int]) -> np.ndarray:
    """Return what `labels` has for each of `ids`, integers of any width, as int16; -1 where it has nothing."""
    known = np.array(sorted(labels), np.int64)
    values = np.array([labels[i] for i in sorted(labels)], np.int16)
    nearest = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[nearest] == ids, values[nearest], np.int16(-1))


def own_ids(spec: DatasetSpec) -> np.ndarray:
    """Return the table `(num_classes,)` from a class index to the data set's own id, the lowest of several."""
    first = {index: number for number, index in sorted(spec.labels.items(), reverse=True)}
    ids = np.array([first.get(index, IGNORE) for index in range(spec.num_classes)])
    return ids.astype(np.uint8 if ids.max() <= 255 else np.uint16)
