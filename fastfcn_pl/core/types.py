"""What the parts of the framework say to each other: shapes of levels, outputs of a network, classes of a data set.

Importing this module is cheap on purpose: torch is needed for annotations only, so that a user's mistake can be
reported before seconds are spent on importing it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
"""Label of a pixel that counts nowhere: not in a loss, not in a metric, not in a picture."""


class UserError(Exception):
    """A mistake that the user can mend. Its message is one line: the cause, the place and the remedy."""


def suggest(word: str, known: Iterable[object]) -> str:
    """Return what may have been meant by a `word` that is not among `known`, or what is known."""
    names = sorted(map(str, known))
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"there is {', '.join(names) or 'nothing to set'}"


def listed(things: Sequence[object], most: int = 8) -> str:
    """Return `things` for a message, the first ones if there are many."""
    return ", ".join(map(str, things[:most])) + (f" and {len(things) - most} more" if len(things) > most else "")


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the keys, joined by dots, at which two nested mappings differ, with both values (None: there is none)."""
    found: list[tuple[str, Any, Any]] = []
    for key in [*first, *(key for key in second if key not in first)]:
        one, other = first.get(key), second.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += [(f"{key}.{inner}", a, b) for inner, a, b in differences(one, other)]
        elif one != other:
            found.append((str(key), one, other))
    return found


@dataclass(frozen=True)
class FeatureInfo:
    """Channels and strides of the levels that a backbone or neck returns, finest first.

    Level `i` is a tensor `(B, channels[i], ceil(H / strides[i]), ceil(W / strides[i]))` for an input `(B, 3, H, W)`.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.channels)

    def append(self, channels: int, stride: int) -> FeatureInfo:
        """Return the description of these levels with one more behind them."""
        return FeatureInfo((*self.channels, channels), (*self.strides, stride))


class ModelOutput(NamedTuple):
    """What a network returns: `logits` `(B, num_classes, h, w)` at the head's stride, and its named extra outputs.

    `extras` is filled in training or when asked for; it holds for example `aux_logits` `(B, num_classes, h', w')`.
    """

    logits: Tensor
    extras: dict[str, Tensor]

    def named(self) -> dict[str, Tensor]:
        """Return every output by the name that a loss term refers to it with."""
        return {"logits": self.logits, **self.extras}


@dataclass(frozen=True)
class DatasetSpec:
    """The classes of a data set: their names, their colours (RGB, 0 to 255) and the ids that its files use for them.

    `remap` maps an id in a label file to a class index, or to `IGNORE`. Where it is empty, ids are class indices
    already and 255 is ignored. An id that is in neither place is an error when a label is read.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    remap: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.palette) != len(self.classes):
            raise UserError(
                f"data set {self.name}: {len(self.classes)} classes but {len(self.palette)} colours: its palette needs "
                f"one for each class"
            )
        if twice := sorted({name for name in self.classes if self.classes.count(name) > 1}):
            raise UserError(f"data set {self.name}: {listed(twice)} is the name of two classes: give each its own")
        if not 1 <= self.num_classes <= IGNORE:
            raise UserError(f"data set {self.name}: {self.num_classes} classes, but labels are 8 bits: 1 to {IGNORE}")
        wrong = sorted(v for v in self.remap.values() if v != IGNORE and not 0 <= v < self.num_classes)
        if wrong:
            raise UserError(
                f"data set {self.name}: remap leads to {listed(wrong)}, but classes are 0 to {self.num_classes - 1}, "
                f"and {IGNORE} is ignored"
            )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def labels(self) -> dict[int, int]:
        """The class index, or `IGNORE`, by id in a label file."""
        return self.remap or {**{i: i for i in range(self.num_classes)}, IGNORE: IGNORE}

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> DatasetSpec:
        """Rebuild the spec from `to_dict`'s containers, of a file of anybody; raises UserError if they are others."""
        texts, colors = [plain["name"], *plain["classes"]], [value for color in plain["palette"] for value in color]
        if not all(isinstance(text, str) for text in texts):
            raise UserError("the name of its data set, or of a class, is no text")
        if not all(isinstance(value, int) and 0 <= value <= 255 for value in colors):
            raise UserError("a colour of its palette is not of three numbers from 0 to 255")
        return cls(
            name=plain["name"],
            classes=tuple(plain["classes"]),
            palette=tuple((r, g, b) for r, g, b in plain["palette"]),
            remap={int(k): int(v) for k, v in plain["remap"].items()},
        )
