"""Whether kernels of our own, which Triton compiles where they are first used, run on this machine's GPU."""

from __future__ import annotations

import functools
import os
import shutil

import torch
from torch import Tensor


def runs_on(x: Tensor) -> bool:
    """Tell whether kernels run where `x` is; what runs without them is as exact, but slower.

    Inside of `torch.compile` they do not: it makes its own.
    """
    return x.is_cuda and _compiles() and not torch.compiler.is_compiling()


@functools.cache
def _compiles() -> bool:
    from torch.utils._triton import has_triton

    compiler = os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))
    return bool(compiler) and has_triton()
