"""Precisions that `predict` and `benchmark` compute in, by Lightning's names."""

from __future__ import annotations

import torch

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What convolutions and products are computed in, by Lightning's words; None: as the weights are."""


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context that computes in `precision`."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
