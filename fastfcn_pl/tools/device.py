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
    """Return the device `name`; raises UserError if this machine does not have it.

    `gpu` is a CUDA GPU, or Apple's (`mps`); `auto` is a CUDA GPU if there is one, else the CPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    only_apples = torch.backends.mps.is_available() and not torch.cuda.is_available()
    try:
        device = torch.device({"gpu": "mps" if only_apples else "cuda"}.get(name, name))
    except RuntimeError as error:
        raise UserError(f"device={name}: use auto, cpu, gpu, cuda, cuda:<number> or mps") from error
    try:
        torch.empty(0, device=device).cpu()  # which the meta device refuses
    except (RuntimeError, AssertionError) as error:  # AssertionError if torch was built without CUDA
        raise UserError(f"device={name}: torch cannot find this device{_found()}; use device=cpu or auto") from error
    return device


def _found() -> str:
    """Return the CUDA devices of this machine for a message."""
    count = torch.cuda.device_count()
    return f", only {', '.join(f'cuda:{i}' for i in range(count))}" if count else " on this machine"
