"""What a network costs: parameters and multiply-accumulates of it and of its parts."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Cost of one part of a network, for one image."""

    parameters: int
    gmacs: float
    """10^9 multiply-accumulates of convolutions and matrix products."""


def cost(model: nn.Module, size: tuple[int, int]) -> dict[str, Cost]:
    """Return the cost of each child of `model` and of the whole (`total`), predicting one image of `size` `(H, W)`.

    Counted on a copy of the network on the meta device, in eval mode, so that it takes no arithmetic. Parts that only
    training runs (the auxiliary head) have parameters and no GMACs.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost(torch.empty(1, 3, *size, device="meta"))
    flops = {module: sum(ops.values()) for module, ops in counter.get_flop_counts().items()}
    root = type(ghost).__name__
    parts = {name: child for name, child in ghost.named_children() if child is not None}
    costs = {name: Cost(_count(child), flops.get(f"{root}.{name}", 0) / 2e9) for name, child in parts.items()}
    return costs | {"total": Cost(_count(ghost), flops.get("Global", 0) / 2e9)}


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
