"""Weights of classes in a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import UserError


class ClassWeighted(nn.Module):
    """Base of losses with an optional weight for each class, in `weights`, which a checkpoint does not hold."""

    weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | str | None) -> None:
        super().__init__()
        if isinstance(class_weights, str):
            raise UserError(f"class_weights={class_weights}: only train reads the data; give a number for each class")
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)

    def check_classes(self, count: int) -> None:
        """Raise UserError if there are weights for another number of classes."""
        if self.weights is not None and len(self.weights) != count:
            raise UserError(f"class_weights has {len(self.weights)} numbers for {count} classes")
