"""Annotated images in a form that all formats share, and errors for files that are not in their format."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.prepare.annotations.regions import Region

IGNORED = None
"""Label of a region whose pixels are ignored."""
BACKGROUND = "background"
OnTop = Literal["smaller", "later"]
_SPLIT = re.compile(r"(?<![a-z])(train|training|val|valid|validation|test|testing)(?![a-z])")


@dataclass(frozen=True)
class Annotation:
    """A region with its label, or with `IGNORED`, of one thing or of a `crowd`."""

    label: str | None
    region: Region
    crowd: bool = False


@dataclass(frozen=True)
class LabelMap:
    """A mask file; `labels` maps its ids, or its colours (0xRRGGBB) if `colors`, to labels."""

    path: Path
    labels: dict[int, str]
    colors: bool


@dataclass(frozen=True)
class AnnotatedImage:
    """Annotations of one image in the file `origin`, from the lowest to the topmost, or its `label_map`.

    `name` is the image as the file names it. `size` is (height, width); None if the file does not say.
    """

    origin: Path
    name: str
    size: tuple[int, int] | None
    annotations: list[Annotation] = field(default_factory=list)
    split: str | None = None
    label_map: LabelMap | None = None


@dataclass
class AnnotationSet:
    """Images and labels of one or more annotation files; labels are in the order of their ids, if they have any.

    `skipped` counts what has no area, or was left out for another reason.
    """

    labels: list[str] = field(default_factory=list)
    images: list[AnnotatedImage] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, other: AnnotationSet) -> None:
        self.labels = list(dict.fromkeys([*self.labels, *other.labels]))
        self.images += other.images
        self.skipped += other.skipped


def used_labels(images: Sequence[AnnotatedImage]) -> list[str]:
    """Return the labels of the annotations, sorted."""
    return sorted({annotation.label for image in images for annotation in image.annotations if annotation.label})


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Raise UserError if the block fails on the content of `path`, which should be of a `kind`."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not {kind} ({reason}): repair it, or export it again") from error


@contextmanager
def within(place: str) -> Iterator[None]:
    """Add the `place` to an error about the content of a file."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{place} lacks {error}") from error
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{place}: {error}") from error


def load_json(path: Path) -> Any:
    """Return the content of a JSON file; raises UserError if it is not one."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions, or leave it out") from error
    except (ValueError, RecursionError) as error:
        reason = "it is empty" if path.stat().st_size == 0 else " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not JSON ({reason}): export it again, or leave it out") from error


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.strip().isprintable() and "${" not in value


def label_name(value: Any) -> str:
    """Return a label without spaces around it; raises ValueError for what cannot name a class."""
    if not _is_name(value):
        raise ValueError(f"the label {value!r} is no name")
    name: str = value.strip()
    return name


def is_list_of_names(value: Any) -> bool:
    """Return whether a value is a list of what can name a class."""
    return isinstance(value, list) and all(map(_is_name, value))


def image_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Return a stated size, or None if a side is not given; raises ValueError for anything else."""
    if height is None or width is None:
        return None
    if not all(isinstance(side, int | float) and side == side // 1 and 0 < side < 2**31 for side in (height, width)):
        raise ValueError(f"the size {width}x{height} is no size of an image")
    return int(height), int(width)


def split_of(*parts: str) -> str | None:
    """Return the split that the last of some names mentions as a word: `train`, `val`, `test` or None."""
    for part in reversed(parts):
        if words := _SPLIT.findall(part.lower()):
            word = words[-1]
            return "val" if word.startswith("val") else "test" if word.startswith("test") else "train"
    return None


def folder_split(path: Path, root: Path) -> str | None:
    """Return the split that the folders of an annotation file name."""
    return split_of(*PurePath(path.relative_to(root)).parent.parts)


def file_split(path: Path, root: Path) -> str | None:
    """Return the split that the name of an annotation file, or else its folders, name."""
    return split_of(*PurePath(path.relative_to(root)).parts)
