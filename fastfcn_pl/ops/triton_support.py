"""Support for our Triton kernels, which are compiled at their first use, on this machine's GPU."""

from __future__ import annotations

import functools
import os
import shutil

import torch
from torch import Tensor
from torch.utils._triton import has_triton


def runs_on(x: Tensor) -> bool:
    """Tell whether Triton kernels run on the device of `x`; other code is as exact, but slower.

    They do not run inside of `torch.compile`, which generates its own.
    """
    return x.is_cuda and _compiles() and not torch.compiler.is_compiling()


@functools.cache
def _compiles() -> bool:
    compiler = os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))
    return bool(compiler) and has_triton()
