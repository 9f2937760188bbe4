"""Findings of an inspection: faults that make training wrong, warnings and notes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastfcn_pl.core.types import IGNORE, listed
from fastfcn_pl.data.class_check import find_label_error
from fastfcn_pl.tools.doctor.statistics import Split, trained

if TYPE_CHECKING:
    from fastfcn_pl.data.datamodule import SegmentationDataModule


@dataclass(frozen=True)
class Finding:
    """One line about a split; `level` is `fault`, `warning` or `note`, and `kind` groups similar findings."""

    level: str
    kind: str
    split: str
    message: str


def findings(data: SegmentationDataModule, splits: dict[str, Split]) -> list[Finding]:
    """Return the findings about the splits, the worst first."""
    found = [finding for name, split in splits.items() for finding in _split_findings(data, name, split)]
    found += _duplicates(data, splits)
    found += _absent_classes(data, splits)
    found += [Finding("note", "masks", trained(data)[0], note) for note in getattr(data, "notes", ())]
    return sorted(found, key=lambda finding: ("fault", "warning", "note").index(finding.level))


def _split_findings(data: SegmentationDataModule, name: str, split: Split) -> Iterator[Finding]:
    tally, needed = split.tally, name in (*trained(data), "val")
    if split.absent is not None:
        level = "fault" if needed else "warning" if split.labelled else "note"
        yield Finding(level, "absent split", name, split.absent)
        return
    if split.listed == 0:
        message = f"split {name} of {data.spec.name} is empty: check data.root and the split's list"
        yield Finding("fault" if needed else "warning", "empty split", name, message)
        return
    yield from (Finding("fault", kind, name, message) for kind, message in tally.faults)
    yield from _size_findings(data, name, split)
    for first, second in tally.twins:
        message = f"{second} has the same picture as {first} in the same split: remove one"
        yield Finding("warning", "duplicate", name, message)
    if data.spec.bands is not None and tally.moments is not None and not tally.moments.variance.all():
        constant = [c for c, variance in enumerate(tally.moments.variance) if variance == 0]
        message = f"position {listed(constant)} of data.bands has one value in all images of split {name}: leave it out"
        yield Finding("fault" if name in trained(data) else "warning", "constant band", name, message)
    if not split.labelled:
        return
    if error := find_label_error(f"split {name}", tally.pixels, data.spec, split.ignored_by_default):
        kind = "nothing labelled" if set(tally.pixels) == {IGNORE} else "one class"
        yield Finding("fault" if needed else "warning", kind, name, error)
    elif tally.blank:
        message = f"{len(tally.blank)} masks of split {name} ignore every pixel, such as {tally.blank[0]}: remove them"
        yield Finding("warning", "nothing labelled", name, message)


def _size_findings(data: SegmentationDataModule, name: str, split: Split) -> Iterator[Finding]:
    official = data.split_sizes.get(name)
    if official is not None and split.listed < official:
        message = (
            f"split {name} has {split.listed} of the official {official} pairs: scores are not comparable with others"
        )
        yield Finding("note", "split size", name, message)
    elif official is not None and split.listed > official:
        message = f"split {name} has {split.listed} pairs, more than the official {official}: remove the extra ones"
        yield Finding("warning", "split size", name, message)
    if trained(data) == (name,) and split.listed < data.batch_size:
        message = f"split {name} has {split.listed} pairs, fewer than data.batch_size={data.batch_size}: lower it"
        yield Finding("fault", "split size", name, message)


def _duplicates(data: SegmentationDataModule, splits: dict[str, Split]) -> Iterator[Finding]:
    """Yield pictures that `val` or `test` share with another split."""
    evaluated = [name for name in ("val", "test") if name in splits]
    for i, judge in enumerate(evaluated):
        others = [name for name in splits if name not in evaluated] + evaluated[:i]
        for other in others:
            pictures, other_pictures = splits[judge].tally.names, splits[other].tally.names
            leaks = other in trained(data) and judge not in trained(data) and splits[judge].labelled
            for digest in (digest for digest in pictures if digest in other_pictures):
                name, other_name = pictures[digest], other_pictures[digest]
                message = f"{name} ({judge}) has the same picture as {other_name} ({other}): "
                message += (
                    f"remove it from {other}" if name != other_name else f"it is listed twice, remove it from {other}"
                )
                yield Finding("fault" if leaks else "warning", "duplicate", judge, message)


def _absent_classes(data: SegmentationDataModule, splits: dict[str, Split]) -> Iterator[Finding]:
    """Yield classes without a pixel in the whole data set, in the training data or in another split."""
    names = data.spec.classes
    read = {name: split for name, split in splits.items() if split.labelled and split.read}
    parts = {data.train_split: [split for name, split in read.items() if name in trained(data)]}
    parts |= {name: [split] for name, split in read.items() if name not in trained(data)}
    absent = {
        name: {c for c in range(len(names)) if not any(part.tally.pixels[c] for part in members)}
        for name, members in parts.items()
        if members
    }
    nowhere = set.intersection(*absent.values()) if absent else set()
    if nowhere:
        message = f"{_describe(nowhere, names)} in no split: check the classes and the ids in the masks"
        yield Finding("warning", "absent class", "", message)
    for name, classes in absent.items():
        if missing := classes - nowhere:
            effect = "never trained" if name == data.train_split else "left out of the mean IoU"
            part = " that was read" if any(split.read < split.listed for split in parts[name]) else ""
            message = f"{_describe(missing, names)} in no image{part} of split {name}, and {effect}: add images with it"
            yield Finding("warning", "absent class", name, message)


def _describe(classes: set[int], names: tuple[str, ...]) -> str:
    shown = listed([names[c] for c in sorted(classes)], 5)
    return f"class {shown} is" if len(classes) == 1 else f"{len(classes)} classes ({shown}) are"
