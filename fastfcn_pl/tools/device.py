"""Device and precision that `predict` and `benchmark` compute in."""

from __future__ import annotations

import torch

from fastfcn_pl.core.types import UserError, suggest

_AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def autocast_dtype(precision: str) -> torch.dtype | None:
    """Return the autocast dtype of a precision, by Lightning's names; None for no autocast."""
    if precision not in _AUTOCAST:
        raise UserError(f"precision={precision}: no such option; {suggest(precision, _AUTOCAST)}")
    return _AUTOCAST[precision]


def find_device(name: str) -> torch.device:
    """Return the device `name`; `auto` is a GPU if there is one. Raises UserError if this machine does not have it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name}: use auto, cpu, cuda or cuda:<number>") from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError if torch was built without CUDA
        raise UserError(f"device={name}: torch cannot find this device; use cpu") from error
    return device
