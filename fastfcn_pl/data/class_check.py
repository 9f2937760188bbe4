"""Check of masks before training, for mistakes that would silently train a useless network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError, listed
from fastfcn_pl.data.io.image_files import FileSource, read_ids
from fastfcn_pl.data.io.label_ids import count_ids, look_up, remap_key, unknown_ids

MAX_MASKS = 200
"""Masks of a split that are read at most."""
MAX_MASKS_OF_ONE_CLASS = 2000
"""Masks that are read at most while only one class has occurred."""
BINARY_REMAP = {0: 0, 255: 1}
"""Class indices of masks that most tools write for one class and the background."""
_MASKS_FOR_MESSAGE = 20
"""Masks whose ids are collected for an error message."""


def require_two_classes(spec: DatasetSpec) -> None:
    """Raise UserError if there are fewer than two classes, or if labels can only be one of them."""
    if spec.num_classes < 2:
        raise UserError(
            f"data set {spec.name} has only the class {listed(spec.classes)}: give at least two (background counts), "
            "such as data.classes=[background,thing]"
        )
    if len(targets := set(spec.labels.values()) - {IGNORE}) < 2:
        mapped = f"only to {spec.classes[min(targets)]}" if targets else "to no class"
        raise UserError(
            f"data set {spec.name}: remap maps {mapped}: map ids to at least two classes (background counts), such as "
            "'data.remap={0: 0, 255: 1}'"
        )


def check_masks(split: str, source: FileSource, spec: DatasetSpec, warn: Callable[[str], None]) -> list[str]:
    """Read masks of a split, evenly spread, until every class has occurred; raises UserError if they are unusable.

    Masks are unusable if an id has no class, if all pixels are ignored, or if there is one class and the rest is 255,
    which is ignored only by default. Other classes that never occur cause a warning and are returned.
    """
    if len(source) == 0:  # `dataset` raises for it
        return []
    read, pixels = 0, Counter[int]()
    order = _reading_order(len(source))
    for read, index in enumerate(order, start=1):
        ids, counts = count_ids(source.ids(index))
        labels = look_up(ids, spec.labels)
        if (labels < 0).any():
            sample = [index, *order[:_MASKS_FOR_MESSAGE]]
            seen = set(np.concatenate([np.unique(source.ids(i)) for i in sample]).tolist())
            raise unknown_ids(source.name(index), ids[labels < 0].tolist(), spec, seen)
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
            pixels[label] += count
        classes = set(pixels) - {IGNORE}
        if len(classes) == spec.num_classes or (read >= MAX_MASKS and len(classes) > 1):
            break
    if error := find_label_error(f"split {split}", pixels, spec, ignored_by_default(source, spec)):
        raise UserError(error)
    absent = [spec.classes[c] for c in range(spec.num_classes) if not pixels[c]]
    if absent and (read == len(source) or len(absent) == spec.num_classes - 1):
        masks = f"the {read} masks" if read == len(source) else f"the {read} masks read (of {len(source)})"
        effect = "left out of the mean IoU" if split == "val" else "never trained"
        warn(f"class {listed(absent, 5)} does not occur in {masks} of split {split}, so it is {effect}")
        return absent
    return []


def has_binary_masks(source: FileSource) -> bool:
    """Return whether masks of a split, evenly spread, hold both 0 and 255 and no other id."""
    seen: set[int] = set()
    for index in _reading_order(len(source))[:MAX_MASKS]:
        seen.update(count_ids(source.ids(index))[0].tolist())
        if not seen <= BINARY_REMAP.keys():
            return False
    return seen == BINARY_REMAP.keys()


def _reading_order(count: int) -> list[int]:
    """Return indices in rounds of `MAX_MASKS`, each of them evenly spread over the split."""
    chosen = np.linspace(0, count, min(count, MAX_MASKS_OF_ONE_CLASS), endpoint=False).astype(int).tolist()
    rounds = -(-len(chosen) // MAX_MASKS)
    return [index for first in range(rounds) for index in chosen[first::rounds]]


def ignored_by_default(source: object, spec: DatasetSpec) -> bool:
    """Return whether 255 is ignored only because neither masks nor remap say otherwise."""
    return isinstance(source, FileSource) and source.read_mask is read_ids and not spec.remap


def find_label_error(where: str, pixels: Counter[int], spec: DatasetSpec, by_default: bool) -> str | None:
    """Return why labels cannot be trained on, from the pixel counts by class index or `IGNORE`; None if they can.

    `by_default` means that 255 is ignored although no remap contains it.
    """
    seen, ignored = [c for c in range(spec.num_classes) if pixels[c]], pixels[IGNORE]
    if not seen:
        return f"every pixel of {where} is ignored: check the masks and the remap" if ignored else None
    if len(seen) > 1 or not ignored or not by_default:
        return None
    only, other = spec.classes[seen[0]], 1 if seen[0] == 0 else 0
    share, as_class = ignored / sum(pixels.values()), remap_key({seen[0]: seen[0], 255: other})
    as_ignored = remap_key({**{c: c for c in range(spec.num_classes)}, 255: 255})
    return (
        f"{where} has only class {only} and {share:.1%} pixels of 255, which is ignored: set '{as_class}' if 255 is "
        f"class {spec.classes[other]}, or '{as_ignored}' to ignore it"
    )
