"""Switches of the fast paths: a user turns all of them off in a network, a benchmark turns off one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

FAST_PATHS = (
    "banded cross entropy",  # training: no scores at the label's size exist at once
    "triton cross entropy",  # the same on a GPU
    "phased depthwise",  # training on a CPU: dilated depthwise convolutions, above all on those without AVX-512
    "triton depthwise",  # dilated depthwise convolutions on a GPU, training and prediction
    "fold",  # prediction: batch norms become part of convolutions
    "packed convolution",  # prediction on a CPU: weights laid out for oneDNN, activations inside of convolutions
    "winograd",  # prediction on a CPU in float32: wide 3x3 convolutions, above all on those without AVX-512
    "fused relu",  # prediction on a GPU: ReLUs inside of cuDNN's convolutions
    "cuda graph",  # prediction on a GPU: kernels launched at once
)
"""Names for `is_enabled` and `without`."""
_disabled: set[str] = set()


def accelerates(accelerate: bool = True) -> bool:
    """Tell whether a network may be changed to run faster: `accelerate`, unless FASTFCN_ACCELERATE says 0 or false."""
    return accelerate and os.environ.get("FASTFCN_ACCELERATE", "1").strip().lower() not in ("0", "false", "no", "off")


def is_enabled(path: str) -> bool:
    """Tell whether the fast path named `path` may run: none does inside of a transform of `torch.func`."""
    assert path in FAST_PATHS, path
    return path not in _disabled and torch._C._functorch.maybe_current_level() is None


@contextmanager
def without(*paths: str) -> Iterator[None]:
    """Turn off the fast paths named `paths`, for networks that are optimized and losses that are computed meanwhile."""
    unknown = set(paths) - set(FAST_PATHS)
    assert not unknown, f"no fast paths: {unknown}"
    added = set(paths) - _disabled
    _disabled.update(added)
    try:
        yield
    finally:
        _disabled.difference_update(added)
