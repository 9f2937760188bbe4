"""The network that predicts, optimized for its device and precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu.prepacked_conv import pack
from fastfcn_pl.acceleration.cuda_graph import RecordedForward
from fastfcn_pl.acceleration.depthwise_conv import use_fast_depthwise
from fastfcn_pl.acceleration.fold import simplify
from fastfcn_pl.acceleration.fused_conv_relu import fuse_relus
from fastfcn_pl.acceleration.known_modules import is_untouched
from fastfcn_pl.acceleration.output_uses import Uses
from fastfcn_pl.acceleration.probe import checked
from fastfcn_pl.core.types import ModelOutput
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.ops.fast_paths import accelerates, is_enabled


@torch.inference_mode(False)  # whose tensors do not tell whether they were changed in place
def optimize_for_inference(
    model: Segmenter, *, device: torch.device, dtype: torch.dtype | None = None, accelerate: bool = True
) -> Segmenter:
    """Return a network that gives the logits of `model`, which is on `device`, in the least time there.

    With `dtype` it autocasts to that by itself, as it does to the one of an autocast around this call. It is a copy of
    `model`. Without `accelerate`, or if the copy gives other logits, it is `model` itself in eval mode, with autocast.
    """
    if dtype is None and torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    network = None
    if accelerates(accelerate):
        network = checked(model, partial(_optimize, device=device, dtype=dtype), dtype)
    if network is None:
        network = copy.copy(model).eval()  # with the parts of `model` itself
        if dtype is not None:
            network.forward = _Autocast(network.forward, device.type, dtype)  # type: ignore[method-assign]
    elif device.type == "cuda" and is_enabled("cuda graph"):
        network.forward = RecordedForward(network.forward)  # type: ignore[method-assign]
    return network


def _optimize(network: Segmenter, uses: Uses, device: torch.device, dtype: torch.dtype | None) -> None:
    """Change `network`, which is in eval mode, to what `optimize_for_inference` returns."""
    if is_enabled("fold"):
        simplify(network, uses)
    network.requires_grad_(False)
    if device.type == "cpu" and next(network.parameters()).dtype == torch.float32 and _has_convolutions(dtype):
        if is_enabled("packed convolution"):
            pack(network, uses, dtype)
    elif device.type == "cuda" and torch.backends.cudnn.is_available() and torch.version.hip is None:
        if is_enabled("fused relu"):
            fuse_relus(network, uses)
        use_fast_depthwise(network)
    if dtype is not None:
        _cast_weights(network, dtype)
        network.forward = _Autocast(network.forward, device.type, dtype)  # type: ignore[method-assign]


def _has_convolutions(dtype: torch.dtype | None) -> bool:
    """Tell whether this processor has convolutions in `dtype` that are faster than those in float32."""
    return dtype is None or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights of convolutions and products once, which autocast would do at each call."""
    for module in network.modules():
        known = type(module) in (nn.Conv2d, nn.Linear) or type(module).__module__.startswith("fastfcn_pl.acceleration")
        if known and isinstance(module, (nn.Conv2d, nn.Linear)) and is_untouched(module):
            module.to(dtype)


class _Autocast:
    """A network's forward, under autocast."""

    def __init__(self, forward: Callable[[Tensor, bool], ModelOutput], device: str, dtype: torch.dtype) -> None:
        self._forward, self._device, self._dtype = forward, device, dtype

    def __call__(self, x: Tensor, extras: bool = False) -> ModelOutput:
        with torch.autocast(self._device, self._dtype):
            return self._forward(x, extras)
