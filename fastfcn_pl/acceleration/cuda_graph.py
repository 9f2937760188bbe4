"""A network's forward on a GPU, recorded as a CUDA graph for images of a size that keeps coming.

For a few images the GPU is faster than Python, which launches each of some 200 kernels; a graph launches them at once.
torch's own recorders take one size for ever (`make_graphed_callables`) or compile for minutes (`torch.compile`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastfcn_pl.core.types import ModelOutput

CALLS_BEFORE_RECORDING = 8
"""Inputs of one size in a row: recording takes as long as some forty replays of a small image save."""


class RecordedForward:
    """A forward in eval mode, which records itself."""

    def __init__(self, forward: Callable[[Tensor, bool], ModelOutput]) -> None:
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
        if self._count > CALLS_BEFORE_RECORDING and self._graph is None and self._can_record:
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

    def __deepcopy__(self, memo: dict[int, Any]) -> RecordedForward:
        return RecordedForward(copy.deepcopy(self._forward, memo))  # a recording stays with its own weights
