"""Mapping of the ids in label files to class indices."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError, listed


def label_table(spec: DatasetSpec, size: int = 256) -> np.ndarray:
    """Return an int16 table `(size,)` from an id below `size` to class index, `IGNORE`, or -1 for an unknown id."""
    return look_up(np.arange(size), spec.labels)


def look_up(ids: np.ndarray, labels: Mapping[int, int]) -> np.ndarray:
    """Return the label of each of `ids`, integers of any width, as int16; -1 for an id that is not in `labels`."""
    known = np.array(sorted(labels), np.int64)
    values = np.array([labels[i] for i in sorted(labels)], np.int16)
    nearest = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[nearest] == ids, values[nearest], np.int16(-1))


def count_ids(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids that occur, sorted, and their numbers of pixels."""
    if ids.dtype not in (np.uint8, np.uint16):
        return np.unique(ids, return_counts=True)
    counts = np.bincount(ids.ravel(), minlength=256)  # faster than sorting
    values = np.flatnonzero(counts)
    return values, counts[values]


def unknown_ids(name: str, ids: list[int], spec: DatasetSpec, seen: Collection[int] = ()) -> UserError:
    """Return the error for a label map `name` with `ids` that `spec` does not have.

    It suggests a remap if the number of ids `seen` in some masks equals the number of classes.
    """
    remedy = "fix the mask, the classes or the remap"
    class_ids = sorted(set(seen)) if len(set(seen)) == spec.num_classes else sorted(set(seen) - {IGNORE})
    if not spec.remap and len(class_ids) == spec.num_classes:
        remap = {number: label for label, number in enumerate(class_ids)} | ({} if IGNORE in class_ids else {255: 255})
        remedy += f", such as '{remap_key(remap)}'"
    elif len(set(seen)) > max(4 * spec.num_classes, 32):
        remedy += f" ({len(set(seen))} ids occur, as in a photograph or a mask that was a JPEG)"
    return UserError(
        f"{name} has the id {listed(ids)}, which {spec.name} ({spec.num_classes} classes) does not have: {remedy}"
    )


def remap_key(remap: Mapping[int, int]) -> str:
    """Return the command-line override that sets `remap`."""
    return "data.remap={" + ", ".join(f"{number}: {label}" for number, label in remap.items()) + "}"


def dataset_ids(spec: DatasetSpec) -> np.ndarray:
    """Return a table `(num_classes,)` from class index to the data set's own id, the lowest if there are several."""
    first = {index: number for number, index in sorted(spec.labels.items(), reverse=True)}
    ids = np.array([first.get(index, IGNORE) for index in range(spec.num_classes)])
    return ids.astype(np.uint8 if ids.max() <= 255 else np.uint16)
