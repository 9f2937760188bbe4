"""From the ids in label files to class indices."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError, listed


def label_table(spec: DatasetSpec) -> np.ndarray:
    """Return the int16 table `(256,)` from an 8-bit id to a class index, `IGNORE`, or -1 for no such id."""
    return look_up(np.arange(256), spec.labels)


def label_shift(table: np.ndarray, num_classes: int) -> np.uint8 | None:
    """Return what to add to ids of 8 bits, which wrap around, to have what a `label_table` says; None if nothing does.

    An id that the data set does not have becomes `num_classes` or more, but not `IGNORE`.
    """
    ids, known = np.arange(256), table >= 0
    if not known.any():
        return None
    amount = (table - ids)[known][0] % 256
    labels = (ids + amount) % 256
    same = np.where(known, labels == table, (labels >= num_classes) & (labels < IGNORE))
    return np.uint8(amount) if same.all() else None


def look_up(ids: np.ndarray, labels: Mapping[int, int]) -> np.ndarray:
    """Return what `labels` has for each of `ids`, integers of any width, as int16; -1 where it has nothing."""
    known = np.array(sorted(labels), np.int64)
    values = np.array([labels[i] for i in sorted(labels)], np.int16)
    nearest = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[nearest] == ids, values[nearest], np.int16(-1))


def unknown_ids(name: str, ids: list[int], spec: DatasetSpec, seen: Collection[int] = ()) -> UserError:
    """Return the error of a label map `name` that holds `ids` which `spec` does not have.

    If the ids `seen` in some masks are as many as there are classes, it says the remap that they may need.
    """
    remedy = "mend the mask, the classes or the remap"
    counted = sorted(set(seen)) if len(set(seen)) == spec.num_classes else sorted(set(seen) - {IGNORE})
    if not spec.remap and len(counted) == spec.num_classes:
        remap = {number: label for label, number in enumerate(counted)} | ({} if IGNORE in counted else {255: 255})
        remedy += f", such as '{remap_key(remap)}'"
    elif len(set(seen)) > max(4 * spec.num_classes, 32):
        remedy += f" ({len(set(seen))} ids occur, as in a photograph, or in a mask that was a JPEG)"
    return UserError(
        f"{name} holds id {listed(ids)}, which {spec.name} ({spec.num_classes} classes) does not have: {remedy}"
    )


def remap_key(remap: Mapping[int, int]) -> str:
    """Return the key to set on a command line."""
    return "data.remap={" + ", ".join(f"{number}: {label}" for number, label in remap.items()) + "}"


def own_ids(spec: DatasetSpec) -> np.ndarray:
    """Return the table `(num_classes,)` from a class index to the data set's own id, the lowest of several."""
    first = {index: number for number, index in sorted(spec.labels.items(), reverse=True)}
    ids = np.array([first.get(index, IGNORE) for index in range(spec.num_classes)])
    return ids.astype(np.uint8 if ids.max() <= 255 else np.uint16)
