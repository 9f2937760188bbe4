"""What a batch norm takes from a batch while it trains, for those that compute with it in another way."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.known_modules import is_untouched


def learns_plainly(norm: nn.Module, x: Tensor) -> TypeGuard[nn.BatchNorm2d]:
    """Tell whether it is a batch norm that takes the statistics of `x`, and runs as it is written."""
    plain = type(norm) is nn.BatchNorm2d and norm.training and norm.affine and norm.track_running_stats
    many = x.numel() > x.shape[1]  # one pixel has no variance
    return plain and many and not torch.compiler.is_compiling()


def watched(*modules: nn.Module) -> bool:
    """Tell whether a hook looks into one of them, or one has a forward of its own."""
    return not all(map(is_untouched, modules))


def count_batch(norm: nn.BatchNorm2d) -> float:
    """Count one more batch; return the share that its statistics have in the running ones."""
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    return 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum


def batch_statistics(
    norm: nn.BatchNorm2d, x: Tensor, share: float, channels: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """Return mean and 1/std of each channel `(C,)` of `x`, which are the `channels` of `norm`.

    Its running ones move on by that `share`, see `count_batch`.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    running = norm.running_mean[channels], norm.running_var[channels]
    mean, variance = torch.ops.aten.batch_norm_update_stats(x.detach(), *running, share)
    return mean, (variance + norm.eps).rsqrt()
