"""The network that predicts, made for the device and the precision that it predicts in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu.prepacked_conv import pack
from fastfcn_pl.acceleration.fold import folded
from fastfcn_pl.acceleration.fused_conv_relu import fuse_activations
from fastfcn_pl.acceleration.known_modules import accelerates, is_untouched, use_plain_layers
from fastfcn_pl.acceleration.output_uses import Uses
from fastfcn_pl.acceleration.probe import accelerated
from fastfcn_pl.core.types import ModelOutput
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.ops.depthwise_conv import DepthwiseConv

_BEFORE_RECORDING = 8
"""Inputs of one size in a row: recording takes as long as some forty replays of a small image save."""

Forward = Callable[[Tensor, bool], ModelOutput]


@torch.inference_mode(False)  # whose tensors do not tell whether they were changed in place
def fastest(
    model: Segmenter, device: torch.device, dtype: torch.dtype | None = None, accelerate: bool = True
) -> Segmenter:
    """Return a copy of `model`, which is on `device`, that gives its logits in the least time there.

    With `dtype` it autocasts to that by itself, as it does to the one of an autocast around this call. Without
    `accelerate`, or if the copy gives other logits, it is `model` itself in eval mode, but for the autocast.
    """
    if dtype is None and torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    accelerate = accelerates(accelerate)
    network = accelerated(model, partial(_made, device=device, dtype=dtype), dtype) if accelerate else None
    if network is None:
        plain = copy.copy(model if accelerate else use_plain_layers(model)).eval()  # with the parts of `model` itself
        if dtype is not None:
            plain.forward = _Autocast(plain.forward, device.type, dtype)  # type: ignore[method-assign]
        return plain
    if device.type == "cuda":
        network.forward = _Recorded(network.forward)  # type: ignore[method-assign]
    return network


def _made(network: Segmenter, uses: Uses, device: torch.device, dtype: torch.dtype | None) -> Segmenter:
    """Change `network`, which is in eval mode, to what `fastest` returns, and return it."""
    network = folded(network, uses).requires_grad_(False)
    if device.type == "cpu" and next(network.parameters()).dtype == torch.float32 and _packs(dtype):
        network = pack(network, uses, winograd=dtype is None)
    elif device.type == "cuda" and torch.backends.cudnn.is_available() and torch.version.hip is None:
        fuse_activations(network, uses)
    if dtype is not None:
        _cast_weights(network, dtype)
        network.forward = _Autocast(network.forward, device.type, dtype)  # type: ignore[method-assign]
    return network


def _packs(dtype: torch.dtype | None) -> bool:
    """Tell whether this processor has convolutions in `dtype`, which do without it what they do on any other."""
    return dtype is None or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast once what autocast would at each call: the weights of convolutions and products, nothing else."""
    for module in network.modules():
        if type(module) in (nn.Conv2d, DepthwiseConv, nn.Linear) and is_untouched(module):
            module.to(dtype)


class _Autocast:
    """A network's forward, under autocast."""

    def __init__(self, forward: Forward, device: str, dtype: torch.dtype) -> None:
        self._forward, self._device, self._dtype = forward, device, dtype

    def __call__(self, x: Tensor, extras: bool = False) -> ModelOutput:
        with torch.autocast(self._device, self._dtype):
            return self._forward(x, extras)


class _Recorded:
    """A network's forward on a GPU, recorded as a CUDA graph for images of the size that comes again and again.

    For a few images the GPU is faster than Python, which launches each of some 200 kernels; a graph's are launched at
    once. An H100 runs EncNet + JPU with ResNet-50 in 1.2 ms in place of 4.4 (512x512, bfloat16).
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._size: torch.Size | None = None
        self._count = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._can_record = True

    def __call__(self, x: Tensor, extras: bool = False) -> ModelOutput:
        if extras or not x.is_cuda:
            return self._forward(x, extras)
        if x.shape != self._size:
            self._size, self._count, self._graph = x.shape, 0, None
        self._count += 1
        if self._count <= _BEFORE_RECORDING:
            return self._forward(x, False)
        if self._graph is None and self._can_record:
            try:
                self._record(x)
            except RuntimeError:  # a forward that waits for what the GPU computes cannot be recorded
                self._can_record = False
        if self._graph is None:
            return self._forward(x, False)
        self._input.copy_(x)
        self._graph.replay()
        return ModelOutput(self._output.logits.clone(), {})  # the next replay writes to the same place

    def _record(self, x: Tensor) -> None:
        with torch.inference_mode(False):
            self._input = torch.empty_like(x)
        graph = torch.cuda.CUDAGraph()
        # Other threads, which pin batches, may allocate meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._output = self._forward(self._input, False)
        self._graph = graph

    def __deepcopy__(self, memo: dict[int, Any]) -> _Recorded:
        return _Recorded(copy.deepcopy(self._forward, memo))  # what is recorded stays with its own weights
