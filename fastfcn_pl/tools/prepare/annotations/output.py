"""Folder of masks, lists and the option for `data=`, written as a whole or not at all."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fastfcn_pl.config.schema import CONF_DIR
from fastfcn_pl.core.atomic_io import disk_errors_reported
from fastfcn_pl.core.types import IGNORE, UserError, listed
from fastfcn_pl.data.io.parallel import parallel_map
from fastfcn_pl.tools.prepare.annotations.annotated import AnnotatedImage, OnTop
from fastfcn_pl.tools.prepare.annotations.drawing import MaskDrawer, Tally
from fastfcn_pl.tools.progress_bar import bar

OUTPUT = "prepared"
_REPORT = "report.txt"
_MARK = "written by python -m fastfcn_pl.prepare, which replaces this folder when it runs again"
"""First line of the report, by which a folder of ours is known."""
_PRINTED = 10
"""Overlaps that are printed; the report has all."""


def is_output(folder: Path) -> bool:
    """Return whether a folder holds what an earlier run wrote."""
    report = folder / _REPORT
    return folder.name.startswith(OUTPUT) and report.is_file() and report.read_bytes().startswith(_MARK.encode())


@dataclass(frozen=True)
class Output:
    """Folder `prepared` below `root` for a data set of this `name`."""

    root: Path
    name: str
    classes: tuple[str, ...]
    on_top: OnTop
    max_pixels: int | None

    @property
    def folder(self) -> Path:
        return self.root / OUTPUT

    @property
    def option(self) -> str:
        """Name for `data=`, which no option of ours has."""
        option = re.sub(r"[^A-Za-z0-9]+", "_", self.name).strip("_").lower() or "annotated"
        return f"my_{option}" if (CONF_DIR / "data" / f"{option}.yaml").exists() else option

    def write(
        self,
        draw: MaskDrawer,
        images: Sequence[AnnotatedImage],
        files: Sequence[Path],
        splits: Sequence[str],
        num_workers: int | None,
    ) -> Tally:
        """Write masks, lists, classes and option, and return the counts of the masks."""
        tally, names = Tally(), _mask_names(self.root, files)
        with self.replaced() as folder:
            tasks = [(image, file, folder / name) for image, file, name in zip(images, files, names, strict=True)]
            with bar("drawing masks", of_bytes=False) as update:
                for done, counts in enumerate(parallel_map(draw, tasks, num_workers), start=1):
                    tally.add(counts)
                    update(done, len(tasks))
            paths = [file.relative_to(self.root).as_posix() for file in files]
            self.write_option(folder, paths, names, splits, [*self.shares(tally), *self.overlaps(tally)])
        return tally

    @contextmanager
    def replaced(self) -> Iterator[Path]:
        """Yield a new folder that replaces `prepared` at the end; raises UserError if that is somebody else's."""
        if os.path.lexists(self.folder) and not is_output(self.folder):
            raise UserError(f"{self.folder} exists and was not written by this command: rename or remove it")
        with disk_errors_reported(self.folder), _replaced(self.folder) as folder:
            yield folder

    def write_option(
        self, folder: Path, images: Sequence[str], masks: Sequence[str], splits: Sequence[str], report: Sequence[str]
    ) -> None:
        """Write lists, classes, the option and the report to `folder`.

        `images` are paths below the root, and `masks` paths in `folder`.
        """
        lines: dict[str, list[str]] = {}
        for image, mask, split in zip(images, masks, splits, strict=True):
            lines.setdefault(split, []).append(f"{image}\t{OUTPUT}/{mask}")
        for split, pairs in {**lines, "classes": self.classes}.items():
            (folder / f"{split}.txt").write_text("".join(f"{pair}\n" for pair in pairs), encoding="utf-8")
        (folder / "data").mkdir()
        (folder / "data" / f"{self.option}.yaml").write_text(self._yaml([*lines]), encoding="utf-8")
        (folder / _REPORT).write_text("".join(f"{line}\n" for line in [_MARK, *report]), encoding="utf-8")

    def print(self, tally: Tally, skipped: Counter[str], splits: Sequence[str]) -> None:
        """Print what was written, and the command that trains on it."""
        shares, overlaps = self.shares(tally), self.overlaps(tally)
        print(f"pixels: {listed(shares)}")
        for line in overlaps[:_PRINTED]:
            print(line)
        if (more := len(overlaps) - _PRINTED) > 0:
            print(f"overlap: {more} more pairs of classes are in {self.folder / _REPORT}")
        if tally.empty:
            print(f"{tally.empty} annotations cover the centre of no pixel")
        self.print_next(skipped, splits)

    def print_next(self, skipped: Counter[str], splits: Sequence[str]) -> None:
        """Print what was left out, the sizes of the splits and the command that trains on them."""
        for reason, count in skipped.items():
            print(f"left out: {count} {reason}")
        for split in sorted(set(splits)):
            print(f"{split}: {splits.count(split)} images")
        print(f"next: python -m fastfcn_pl.train -cd {shlex.quote(str(self.folder))} data={self.option}")

    def shares(self, tally: Tally) -> list[str]:
        """Return the share of each class in the pixels, the largest first."""
        total = tally.pixels.total()
        return [f"{self._name(index)} {count / total:.2%}" for index, count in tally.pixels.most_common()]

    def overlaps(self, tally: Tally) -> list[str]:
        """Return a line about each pair of classes that overlapped, the largest overlap first."""
        return [
            f"overlap: {self._name(over)} hides {count} pixels of {self._name(below)}, since the {self.on_top} "
            "annotation is on top"
            for (below, over), count in tally.hidden.most_common()
        ]

    def _name(self, index: int) -> str:
        return "ignored" if index == IGNORE else self.classes[index]

    def _yaml(self, splits: Sequence[str]) -> str:
        paths = {split: {"images": None, "masks": None, "list": f"{OUTPUT}/{split}.txt"} for split in sorted(splits)}
        root, classes = str(self.root.resolve()), [*self.classes]
        option: dict[str, Any] = {
            "defaults": ["folder", "_self_"],
            "name": self.name,
            "root": root,
            "classes": classes,
            "splits": paths,
        }
        option |= {} if self.max_pixels is None else {"max_pixels": self.max_pixels}
        return yaml.safe_dump(option, sort_keys=False, allow_unicode=True)


def _mask_names(root: Path, files: Sequence[Path]) -> list[str]:
    """Return the path of each mask in the output: that of its image, with its extension if that makes a difference."""
    paths = [file.relative_to(root) for file in files]
    counts = Counter(path.with_suffix("") for path in paths)
    stems = [path if counts[path.with_suffix("")] > 1 else path.with_suffix("") for path in paths]
    return [f"masks/{stem.as_posix()}.png" for stem in stems]


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of `folder` at the end, and is removed if the block fails."""
    new, old = (folder.with_name(f".{folder.name}.{age}") for age in ("new", "old"))
    for leftover in (new, old):  # of a killed process, since the root is locked
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
