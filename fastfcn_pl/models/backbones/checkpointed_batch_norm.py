"""Batch norms under gradient checkpointing, which computes parts of a network twice."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from fastfcn_pl.core.types import UserError


class Recomputing:
    """The time between two forward passes of a network, from `begin` to `end`, in which parts are computed again.

    Batch norms keep their running statistics then, which contain the batch already.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    def begin(self, net: nn.Module) -> None:
        for norm in net.modules():  # Lightning may have replaced them with synchronised ones
            if isinstance(norm, _BatchNorm) and norm.training and norm.track_running_stats:
                release = partial(_release, norm.momentum)
                self._handles += [norm.register_forward_pre_hook(_hold), norm.register_forward_hook(release)]

    def end(self) -> None:
        while self._handles:
            self._handles.pop().remove()


def checkpoint_gradients(net: nn.Module, name: str) -> None:
    """Turn gradient checkpointing on in timm's network `name`; raises UserError if it has none."""
    try:
        # The network itself, if timm wraps it.
        getattr(net, "model", net).set_grad_checkpointing()  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        raise UserError(
            f"model.backbone.grad_checkpointing=true: timm has none for the features of {name}; set it to false, or "
            "take a net that has, such as resnet50s, convnext_tiny or efficientnet_lite0"
        ) from error


def _hold(norm: nn.Module, inputs: Any) -> None:
    assert isinstance(norm, _BatchNorm)
    assert norm.num_batches_tracked is not None
    norm.momentum = 0.0
    norm.num_batches_tracked.sub_(1)


def _release(momentum: float | None, norm: nn.Module, inputs: Any, output: Any) -> None:
    norm.momentum = momentum  # type: ignore[assignment]
