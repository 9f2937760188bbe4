"""Synchronized counterparts of the batch norms that torch and timm have."""

from __future__ import annotations

from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)


def synchronized(norm: _BatchNorm) -> nn.Module | None:
    """Return a batch norm over all ranks with the same parameters, statistics and activation; None if it is unknown."""
    return convert_sync_batchnorm(norm) if type(norm) in _KNOWN else None
