"""Mean and standard deviation that images are normalised by."""

from __future__ import annotations

import torch
from torch import Tensor

from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.models.segmenter import Segmenter


def statistics(model: Segmenter, spec: DatasetSpec) -> tuple[Tensor, Tensor]:
    """Return mean and std `(C,)` of images as they are read: those of bands, or for RGB those of the backbone.

    Raises UserError if the network takes images of another number of channels, or if those of bands are not measured.
    """
    if model.in_chans != spec.channels:
        raise UserError(
            f"the network takes images of {model.in_chans} channels, and {spec.name} has {spec.images}: set "
            f"model.backbone.in_chans={spec.channels}"
        )
    if spec.bands is not None:
        mean, std = spec.bands.statistics
        return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)
    return torch.tensor(model.backbone.mean) * 255, torch.tensor(model.backbone.std) * 255
