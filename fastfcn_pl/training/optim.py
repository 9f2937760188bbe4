"""Optimizers as the paper groups their parameters. The schedule is torch's own `PolynomialLR`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from fastfcn_pl.core.types import UserError


def optimizer(
    model: nn.Module,
    batch_size: int,
    *,
    lr: float,
    head_lr_ratio: float,
    base_batch_size: int | None,
    algorithm: Callable[[list[dict[str, Any]]], Optimizer],
) -> Optimizer:
    """Build `algorithm` over two groups: `backbone` at `lr`, everything else (`head`) at `head_lr_ratio` times that.

    If `base_batch_size` is given, learning rates are multiplied by `batch_size / base_batch_size`, with the effective
    `batch_size` over devices and accumulation (official `option.py`: `lr / 16 * batch_size`).
    """
    if "lr" in getattr(algorithm, "keywords", {}):
        raise UserError("optimizer.algorithm.lr would be ignored: set optimizer.lr, and optimizer.head_lr_ratio")
    scaled = lr * batch_size / base_batch_size if base_batch_size else lr
    backbone = [p for n, p in model.named_parameters() if n.startswith("backbone.") and p.requires_grad]
    head = [p for n, p in model.named_parameters() if not n.startswith("backbone.") and p.requires_grad]
    groups = [
        {"name": "backbone", "params": backbone, "lr": scaled},
        {"name": "head", "params": head, "lr": scaled * head_lr_ratio},
    ]
    return algorithm([group for group in groups if group["params"]])
