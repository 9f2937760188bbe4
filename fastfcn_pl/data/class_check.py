"""A look at the masks before training, for what would train to nonsense without an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError, listed
from fastfcn_pl.data.io.image_files import FileSource, read_ids
from fastfcn_pl.data.io.label_ids import look_up, remap_key, unknown_ids

LOOKED_AT = 200
"""Masks of a split that are read at most, unless one class alone occurs in them."""
IN_DOUBT = 2000
"""Masks that are read at most where one class alone occurs."""
_FOR_IDS = 20
"""Masks whose ids are collected for a message."""


def require_two_classes(spec: DatasetSpec) -> None:
    """Raise UserError where there are not two classes to tell from each other."""
    if spec.num_classes < 2:
        raise UserError(
            f"data set {spec.name} has the class {listed(spec.classes)} alone: give two at least (background is one), "
            "such as data.classes=[background,thing]"
        )
    if len(reached := set(spec.labels.values()) - {IGNORE}) < 2:
        name = spec.classes[min(reached)] if reached else "no class"
        raise UserError(
            f"data set {spec.name}: remap leads to {name} alone, and there is nothing to tell it from: lead ids to two "
            "classes at least (background is one), such as 'data.remap={0: 0, 255: 1}'"
        )


def check_masks(split: str, source: FileSource, spec: DatasetSpec, warn: Callable[[str], None]) -> None:
    """Read some masks of a split, evenly spread, until each class has been seen; raises UserError for nonsense.

    That is an id without a class, a split whose pixels are all ignored, or one where one class alone occurs and 255,
    which nobody has said to be ignored, covers the rest. Classes that do not occur otherwise are a warning.
    """
    if len(source) == 0:  # which is said elsewhere
        return
    read, pixels = 0, Counter[int]()
    order = _spread(len(source))
    for read, index in enumerate(order, start=1):
        ids = _ids(source, index)
        labels = look_up(np.array([*ids]), spec.labels).tolist()
        if unknown := [number for number, label in zip(ids, labels, strict=True) if label < 0]:
            seen = {number for other in [index, *order[:_FOR_IDS]] for number in _ids(source, other)}
            raise unknown_ids(source.name(index), unknown, spec, seen)
        for label, count in zip(labels, ids.values(), strict=True):
            pixels[label] += count
        classes = set(pixels) - {IGNORE}
        if len(classes) == spec.num_classes or (read >= LOOKED_AT and len(classes) > 1):
            break
    if fault := nonsense(f"split {split}", pixels, spec, ignored_by_default(source, spec)):
        raise UserError(fault)
    lacking = [spec.classes[c] for c in range(spec.num_classes) if not pixels[c]]
    if lacking and (read == len(source) or len(lacking) == spec.num_classes - 1):
        of = f"the {read} masks" if read == len(source) else f"{read} of the {len(source)} masks, all that were read,"
        effect = "left out of the mean IoU" if split == "val" else "never learned"
        warn(f"no pixel of class {listed(lacking, 5)} is in {of} of split {split}, so that it is {effect}")


def _spread(count: int) -> list[int]:
    """Return the order to read in: the first `LOOKED_AT` are evenly spread over all, and so are the further ones."""
    chosen = np.linspace(0, count, min(count, IN_DOUBT), endpoint=False).astype(int).tolist()
    rounds = -(-len(chosen) // LOOKED_AT)
    return [index for first in range(rounds) for index in chosen[first::rounds]]


def _ids(source: FileSource, index: int) -> dict[int, int]:
    """Return how many pixels of a mask have each id."""
    found = source.ids(index)
    if found.dtype == np.uint8:  # counting is faster than sorting
        counts = np.bincount(found.ravel(), minlength=256)
        return {number: int(counts[number]) for number in np.flatnonzero(counts).tolist()}
    return dict(zip(*(values.tolist() for values in np.unique(found, return_counts=True)), strict=True))


def ignored_by_default(source: object, spec: DatasetSpec) -> bool:
    """Return whether 255 is ignored because nothing else is said of it."""
    return isinstance(source, FileSource) and source.read_mask is read_ids and not spec.remap


def nonsense(where: str, pixels: Counter[int], spec: DatasetSpec, by_default: bool) -> str | None:
    """Return why labels cannot be trained on, from their pixels by class index or `IGNORE`; None where they can.

    `by_default` says that 255 is ignored although no remap has it.
    """
    seen, ignored = [c for c in range(spec.num_classes) if pixels[c]], pixels[IGNORE]
    if not seen:
        return f"every pixel of {where} is ignored: check the masks, or what the ids are mapped to" if ignored else None
    if len(seen) > 1 or not ignored or not by_default:
        return None
    only, other = spec.classes[seen[0]], 1 if seen[0] == 0 else 0
    share, meant = ignored / sum(pixels.values()), remap_key({seen[0]: seen[0], 255: other})
    as_it_is = remap_key({**{c: c for c in range(spec.num_classes)}, 255: 255})
    return (
        f"{where} has no pixels but those of class {only} and {share:.1%} of 255, which is ignored: set '{meant}' if "
        f"255 is class {spec.classes[other]}, or '{as_it_is}' if it is to be ignored"
    )
