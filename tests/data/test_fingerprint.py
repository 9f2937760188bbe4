"""Fingerprint of a data set: equal for equal data in any folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.data.datasets.shapes import ShapesSource
from fastfcn_pl.data.fingerprint import fingerprint
from fastfcn_pl.data.io.image_files import FileSource

SPEC = DatasetSpec("two", ("left", "right"), ((200, 0, 0), (0, 0, 200)))


def _files(root: Path, count: int = 3) -> FileSource:
    pairs = [(root / "images" / f"{i}.jpg", root / "masks" / f"{i}.png") for i in range(count)]
    for number, path in enumerate(path for pair in pairs for path in pair):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
    return FileSource(pairs)


def test_it_changes_with_names_sizes_splits_and_classes_only(tmp_path: Path) -> None:
    source = _files(tmp_path / "here")
    print_ = fingerprint(SPEC, {"train": source})
    assert len(print_) == 16
    assert fingerprint(SPEC, {"train": _files(tmp_path / "there")}) == print_, "a copy is the same data"
    repainted = replace(SPEC, palette=((1, 1, 1), (2, 2, 2)))
    assert fingerprint(repainted, {"train": source}) == print_, "so it is in other colours"

    others = [
        fingerprint(replace(SPEC, classes=("left", "top")), {"train": source}),
        fingerprint(replace(SPEC, remap={0: 1, 1: 0}), {"train": source}),
        fingerprint(SPEC, {"val": source}),
        fingerprint(SPEC, {"train": source, "val": source}),
        fingerprint(SPEC, {"train": _files(tmp_path / "more", count=4)}),
        fingerprint(SPEC, {"train": FileSource(source.pairs[::-1])}),
    ]
    source.pairs[1][1].write_bytes(b"changed")
    others.append(fingerprint(SPEC, {"train": source}))
    source.pairs[1][1].rename(tmp_path / "here" / "masks" / "renamed.png")
    renamed = [source.pairs[0], (source.pairs[1][0], tmp_path / "here" / "masks" / "renamed.png"), source.pairs[2]]
    others.append(fingerprint(SPEC, {"train": FileSource(renamed)}))
    assert len({print_, *others}) == 1 + len(others)


def test_generated_images_are_identified_by_their_parameters() -> None:
    shapes = [ShapesSource(8, 32, seed=0), ShapesSource(8, 48, seed=0), ShapesSource(9, 32, seed=0)]
    prints = [fingerprint(SPEC, {"train": source}) for source in [*shapes, ShapesSource(8, 32, seed=1)]]
    assert len(set(prints)) == 4
    assert fingerprint(SPEC, {"train": ShapesSource(8, 32, seed=0)}) == prints[0]
