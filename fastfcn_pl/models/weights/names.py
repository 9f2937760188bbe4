"""Renaming the tensors of a published network: rules, and an account of every tensor."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from fastfcn_pl.contracts import UserError

Rules = Sequence[tuple[str, str | None]]
"""Pairs of a pattern for the beginning of a name and what takes its place; None leaves the tensor out on purpose."""


def rename(state: dict[str, Tensor], rules: Rules) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under their new names, by the first rule that fits each, and the names left out on purpose.

    Raises UserError with the list of names that no rule fits.
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
