"""The architecture of a published network in our options, and rules that rename its tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastfcn_pl.core.types import UserError


@dataclass(frozen=True)
class Architecture:
    """A network as the options and keys that compose it."""

    options: dict[str, str]
    """Options by group below `model`: `backbone`, `neck`, `head`, `aux_head`."""
    keys: dict[str, Any]
    """Values by path below `model`."""
    num_classes: int

    @property
    def overrides(self) -> list[str]:
        """The command line that composes it."""
        options = [f"model/{group}={option}" for group, option in self.options.items()]
        return [*options, *(f"model.{key}={value}" for key, value in self.keys.items())]

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name, value in {**self.options, **self.keys}.items()]
        return f"{', '.join(parts)}, {self.num_classes} classes"


Rules = Sequence[tuple[str, str | None]]
"""Pairs of a pattern for the beginning of a name and its replacement; None drops the tensor."""


def rename(state: dict[str, Tensor], rules: Rules) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under their new names, by the first rule that fits each, and the names that were dropped.

    Raises UserError with the names that no rule fits.
    """
    renamed, dropped, unknown = {}, [], []
    for name, tensor in state.items():
        for pattern, replacement in rules:
            if match := re.match(pattern, name):
                if replacement is None:
                    dropped.append(name)
                else:
                    renamed[match.expand(replacement) + name[match.end() :]] = tensor
                break
        else:
            unknown.append(name)
    if unknown:
        raise UserError(f"{len(unknown)} tensors belong to no known part of the network: {', '.join(unknown[:8])}")
    return renamed, dropped


def count_batches(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with a count of 0 batches for batch norms without one, as torch wrote them before 0.4.1."""
    norms = [name.removesuffix("running_var") for name in state if name.endswith(".running_var")]
    return {**{f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}, **state}
