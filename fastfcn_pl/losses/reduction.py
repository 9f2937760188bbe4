"""Means over the labelled pixels of all ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(total: Tensor, count: Tensor) -> Tensor:
    """Divide this rank's `total` so that DDP's average of it is the sum of totals over the sum of counts of all ranks.

    If no rank has a labelled pixel, it is `total`, which then is 0 with a gradient of 0.
    """
    count = count.detach().to(torch.float32)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    return total / count.masked_fill(count == 0, 1)
