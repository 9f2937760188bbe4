"""Precisions of `predict` and `benchmark`, by Lightning's names."""

from __future__ import annotations

import torch

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Autocast dtype of each precision; None for no autocast."""
