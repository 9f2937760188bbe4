"""The parameters that train, by group, as a table on the terminal."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from fastfcn_pl.core.tables import print_table

_DEPTH = re.compile(r"_\d+")


def print_parameters(model: nn.Module, optimizer: Optimizer) -> None:
    """Print parameters, learning rate and weight decay of each group; the groups of a part's layers share a row."""
    merged: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for group in optimizer.param_groups:
        merged[_DEPTH.sub("", group["name"])].append(group)
    rows = [
        (
            name,
            f"{len(groups)}" if _DEPTH.search(groups[0]["name"]) else "-",
            _count(parameter for group in groups for parameter in group["params"]),
            _range(group["lr"] for group in groups),
            _range(group.get("weight_decay", 0) for group in groups),
        )
        for name, groups in merged.items()
    ]
    if frozen := [parameter for parameter in model.parameters() if not parameter.requires_grad]:
        rows.append(("frozen", "-", _count(frozen), "-", "-"))
    print_table((f"by {type(optimizer).__name__}", "layers", "parameters", "learning rate", "weight decay"), rows)


def _count(parameters: Iterable[nn.Parameter]) -> str:
    return f"{sum(parameter.numel() for parameter in parameters):,}"


def _range(values: Iterable[float]) -> str:
    """Return the smallest and the largest value, or the only one."""
    ordered = sorted(set(values))
    return " to ".join(f"{value:.3g}" for value in dict.fromkeys((ordered[0], ordered[-1])))
