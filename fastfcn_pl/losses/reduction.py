"""The mean over the labelled pixels of all ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from fastfcn_pl.contracts import IGNORE


def mean_over_labelled(total: Tensor, target: Tensor) -> Tensor:
    """Divide `total`, a sum over this rank's labelled pixels, so that DDP's average of it is the mean over all ranks.

    Without a labelled pixel anywhere it is `total`, which then is 0 with a gradient of 0.
    """
    count = (target != IGNORE).sum().to(torch.float32)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    return total / torch.where(count > 0, count, 1.0)
