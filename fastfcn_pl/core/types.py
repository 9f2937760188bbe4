"""Types that the parts of the framework exchange: feature shapes, network outputs, the classes of a data set.

This module imports torch for annotations only, so that a user's mistake is reported before the seconds that importing
torch takes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
"""Label of pixels that losses, metrics and pictures leave out."""


class UserError(Exception):
    """A mistake that the user can fix. Its message is one line: cause, place and remedy."""


def suggest(word: str, known: Iterable[object]) -> str:
    """Return a hint for a misspelt `word`: the closest of the `known` names, or all of them."""
    names = sorted(map(str, known))
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return (
        f"did you mean {' or '.join(close)}?"
        if close
        else f"choose from {', '.join(names)}"
        if names
        else "there is nothing to set"
    )


def listed(items: Sequence[object], most: int = 8) -> str:
    """Return `items` joined for a message, cut off after the first `most`."""
    return ", ".join(map(str, items[:most])) + (f" and {len(items) - most} more" if len(items) > most else "")


class Box(NamedTuple):
    """Region of an image in pixels; `right` and `bottom` are not included."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True)
class FeatureInfo:
    """Channels and strides of the levels that a backbone or neck returns, finest first.

    Level `i` is a tensor `(B, channels[i], ceil(H / strides[i]), ceil(W / strides[i]))` for an input `(B, 3, H, W)`. A
    neck or head needs it, also in a network of somebody else:

    >>> import torch
    >>> from fastfcn_pl import FeatureInfo
    >>> from fastfcn_pl.models.necks.jpu import JPU
    >>> info = FeatureInfo(channels=(16, 32, 64), strides=(8, 16, 32))
    >>> neck = JPU(info, align_corners=False, width=8, dilations=(1, 2, 4, 8))
    >>> levels = [torch.zeros(2, 16, 16, 16), torch.zeros(2, 32, 8, 8), torch.zeros(2, 64, 4, 4)]
    >>> neck(levels)[-1].shape, neck.out_info.channels
    (torch.Size([2, 32, 16, 16]), (16, 32, 64, 32))
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.channels)

    def append(self, channels: int, stride: int) -> FeatureInfo:
        """Return these levels with one more at the end."""
        return FeatureInfo((*self.channels, channels), (*self.strides, stride))


@dataclass(frozen=True)
class ParameterDepths:
    """Depths of a backbone's parameters by name, from 0 for the stem; neck and heads have the depth `top`.

    A parameter that `depths` leaves out is as deep as neck and heads.
    """

    depths: Mapping[str, int]
    top: int


class ModelOutput(NamedTuple):
    """Output of a network: `logits` `(B, num_classes, h, w)` at the head's stride, and named extra outputs.

    `extras` is filled in training, or on request. It holds, for example, `aux_logits` `(B, num_classes, h', w')`.
    """

    logits: Tensor
    extras: dict[str, Tensor]

    def named(self) -> dict[str, Tensor]:
        """Return all outputs by name, as loss terms refer to them."""
        return {"logits": self.logits, **self.extras}


@dataclass(frozen=True)
class Bands:
    """Bands of images `(H, W, C)`, float32, that are no photographs, and their `mean` and `std` in units of the files.

    `files` has the bands, counted from 0, that are taken from each file of an image. `display` has the channels that
    pictures show as red, green and blue, or one as grey. `mean` and `std` are empty until they are measured.
    """

    files: tuple[tuple[int, ...], ...]
    display: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.files or not all(self.files) or not all(_is_index(band) for file in self.files for band in file):
            raise UserError(f"data.bands={_plain(self.files)}: give positions of bands, counted from 0, of each file")
        if len(self.display) not in (1, 3) or not all(_is_index(c) and c < self.count for c in self.display):
            raise UserError(
                f"data.display_bands={list(self.display)}: give three positions in data.bands for red, green and blue, "
                f"or one for grey, 0 to {self.count - 1}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            numbers = all(type(x) in (int, float) and math.isfinite(x) for x in values)
            if not numbers or len(values) not in (0, self.count) or (name == "std" and min(values, default=1) <= 0):
                raise UserError(
                    f"data.{name}={list(values)}: give a number for each of {self.count} bands (std above 0)"
                )

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Bands:
        """Rebuild the bands from plain containers; raises errors of several types for anything else."""
        return cls(
            **{**{key: tuple(values) for key, values in plain.items()}, "files": tuple(map(tuple, plain["files"]))}
        )

    @property
    def count(self) -> int:
        """Channels of an image."""
        return sum(map(len, self.files))

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of each channel; raises UserError if they were not measured."""
        if not self.mean or not self.std:
            raise UserError(
                "data.bands needs data.mean and data.std: add the lines that python -m fastfcn_pl.doctor prints of it"
            )
        return self.mean, self.std


def _is_index(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 16


def _plain(files: tuple[tuple[int, ...], ...]) -> list[Any]:
    """Return bands as YAML gives them: one list, or one for each of several files."""
    return [*files[0]] if len(files) == 1 else [[*file] for file in files]


@dataclass(frozen=True)
class DatasetSpec:
    """Classes of a data set: names, colours (RGB, 0 to 255) and the ids that its label files use.

    Images are RGB of 8 bits, or have `bands`. `remap` maps an id in a label file to a class index or to `IGNORE`. If it
    is empty, ids are class indices already and 255 is ignored. Reading a label map with any other id is an error.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    remap: dict[int, int] = field(default_factory=dict)
    bands: Bands | None = None

    def __post_init__(self) -> None:
        if len(self.palette) != len(self.classes):
            raise UserError(
                f"data set {self.name}: {len(self.classes)} classes but {len(self.palette)} colours: give one "
                "colour for each class"
            )
        if repeated := sorted({name for name in self.classes if self.classes.count(name) > 1}):
            raise UserError(f"data set {self.name}: two classes are named {listed(repeated)}: rename one of them")
        if not 1 <= self.num_classes <= IGNORE:
            raise UserError(f"data set {self.name}: {self.num_classes} classes: labels have 8 bits, use 1 to {IGNORE}")
        if invalid := sorted({v for v in self.remap.values() if v != IGNORE and not 0 <= v < self.num_classes}):
            raise UserError(
                f"data set {self.name}: remap maps to {listed(invalid)}: use a class index, 0 to "
                f"{self.num_classes - 1}, or {IGNORE} to ignore the pixels"
            )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def channels(self) -> int:
        return 3 if self.bands is None else self.bands.count

    @property
    def images(self) -> str:
        return f"images of {self.channels} bands {_plain(self.bands.files)}" if self.bands else "RGB images"

    def check_images(self, other: DatasetSpec, whose: str) -> None:
        """Raise UserError if `whose` network, trained on these images, cannot take those of `other`."""
        if (self.bands and self.bands.files) != (other.bands and other.bands.files):
            raise UserError(
                f"{whose} takes {self.images}, not the {other.images} of {other.name}: set data.bands as it was "
                "trained, or train a new network from its weights with python -m fastfcn_pl.train checkpoint=..."
            )

    @property
    def labels(self) -> dict[int, int]:
        """Class index, or `IGNORE`, by id in a label file."""
        return self.remap or {**{i: i for i in range(self.num_classes)}, IGNORE: IGNORE}

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, to store in a checkpoint; those of RGB images name no bands."""
        plain = asdict(self)
        return plain if self.bands else {key: value for key, value in plain.items() if key != "bands"}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> DatasetSpec:
        """Rebuild the spec from the containers of `to_dict`; raises UserError for anything else."""
        texts, colors = [plain["name"], *plain["classes"]], [value for color in plain["palette"] for value in color]
        if not all(isinstance(text, str) for text in texts):
            raise UserError("the name of its data set or of a class is not a string")
        if not all(isinstance(value, int) and 0 <= value <= 255 for value in colors):
            raise UserError("a colour of its palette is not three integers from 0 to 255")
        return cls(
            name=plain["name"],
            classes=tuple(plain["classes"]),
            palette=tuple((r, g, b) for r, g, b in plain["palette"]),
            remap={int(k): int(v) for k, v in plain["remap"].items()},
            bands=Bands.from_dict(plain["bands"]) if plain.get("bands") else None,
        )
