"""Optimizers, with the rates and the weight decay of each group of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from fastfcn_pl.core.types import UserError
from fastfcn_pl.training.parameter_groups import parameter_groups


def optimizer(
    model: nn.Module,
    batch_size: int,
    *,
    lr: float,
    head_lr_ratio: float,
    base_batch_size: int | None,
    algorithm: Callable[[list[dict[str, Any]]], Optimizer],
    layer_decay: float | None = None,  # missing in checkpoints written before this option existed
    decay_norm_and_bias: bool = True,  # likewise
) -> Optimizer:
    """Build `algorithm` over the backbone's parameters at `lr`, and everything else at `head_lr_ratio` times that.

    If `base_batch_size` is given, learning rates are multiplied by `batch_size / base_batch_size`, with the effective
    `batch_size` over devices and accumulation (official `option.py`: `lr / 16 * batch_size`). `layer_decay` and
    `decay_norm_and_bias` are those of `parameter_groups`. Raises UserError for values without a meaning.
    """
    if "lr" in getattr(algorithm, "keywords", {}):
        raise UserError("optimizer.algorithm.lr would be ignored: set optimizer.lr, and optimizer.head_lr_ratio")
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise UserError(f"optimizer.layer_decay={layer_decay}: use a number above 0, up to 1, or null")
    scaled = lr * batch_size / base_batch_size if base_batch_size else lr
    return algorithm(parameter_groups(model, scaled, scaled * head_lr_ratio, layer_decay, decay_norm_and_bias))
