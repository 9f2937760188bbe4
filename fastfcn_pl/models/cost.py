"""Cost of a network and its parts: parameters, multiply-accumulates, memory and time."""

from __future__ import annotations

import copy
import statistics
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fastfcn_pl.models.heads.encoding import Encoding


@dataclass(frozen=True)
class Cost:
    """Cost of one part of a network that predicts one image."""

    parameters: int
    gmacs: float
    """10^9 multiply-accumulates of convolutions and matrix products, without those of the encoding layer."""
    peak_mib: float
    """Peak memory of its tensors in float32, beside its input and its weights."""


def cost(model: nn.Module, size: tuple[int, int]) -> dict[str, Cost]:
    """Return the cost of each child of `model` and of the whole (`total`), predicting one image of `size` `(H, W)`.

    It is counted on the meta device in eval mode, without arithmetic or memory. Parts that run only in training (the
    auxiliary head) have parameters and nothing else. Workspaces inside of kernels are not counted.
    """
    ghost = copy.deepcopy(model).to("meta", torch.float32).eval()
    parts = {**dict(ghost.named_children()), "total": ghost}
    memory = _LiveTensors()
    peaks: dict[str, int] = {}
    with (
        memory,
        FlopCounterMode(display=False) as counter,
        _around(parts, memory.start, lambda name, before: peaks.update({name: memory.peak_since(before)})),
        torch.no_grad(),
    ):
        ghost(torch.empty(1, _channels(model), *size, device="meta"))
    flops = {module: sum(ops.values()) for module, ops in counter.get_flop_counts().items()}
    root = type(ghost).__name__
    # Published counts leave out the encoding layer, whose published code has no matrix product.
    encodings = [name for name, module in ghost.named_modules() if isinstance(module, Encoding)]

    def gmacs(part: str) -> float:
        counted = flops.get(f"{root}.{part}" if part else "Global", 0)
        return (counted - sum(flops.get(f"{root}.{name}", 0) for name in encodings if name.startswith(part))) / 2e9

    return {
        name: Cost(
            parameters=sum(p.numel() for p in part.parameters()),
            gmacs=gmacs("" if name == "total" else name),
            peak_mib=peaks.get(name, 0) / 2**20,
        )
        for name, part in parts.items()
    }


def training_mib(model: nn.Module, batch: int, size: tuple[int, int]) -> float:
    """Return the peak memory in MiB of a training step on `batch` images of `size` `(H, W)`, with its weights.

    The step is the forward and backward pass of the outputs' sum, without loss and optimizer. Its tensors are counted
    on the meta device in float32, so that the count is the same on each machine.
    """
    ghost = copy.deepcopy(model).to("meta", torch.float32).train()
    memory = _LiveTensors()
    with memory:
        started = memory.start()
        step(ghost, torch.empty(batch, _channels(model), *size, device="meta"))
        peak = memory.peak_since(started)
    return (peak + sum(tensor.nbytes for tensor in ghost.state_dict().values())) / 2**20


def _channels(model: nn.Module) -> int:
    return getattr(model, "in_chans", 3)


def step(model: nn.Module, x: Tensor) -> None:
    """Compute the outputs of `model` for a batch `x`, and the gradients of their sum."""
    outputs = [output for output in torch.utils._pytree.tree_leaves(model(x)) if isinstance(output, Tensor)]
    torch.stack([output.sum() for output in outputs]).sum().backward()


def latency(model: nn.Module, x: Tensor, repeats: int = 10, warm_up: int = 2) -> dict[str, float]:
    """Return the median seconds that each child of `model` and the whole (`total`) take for the batch `x`.

    Measured where `x` and `model` are, in eval mode, without gradients.
    """
    training = model.training
    model.eval()
    with torch.no_grad():
        seconds = timings(lambda: model(x), dict(model.named_children()), x.device, repeats, warm_up)
    model.train(training)
    return {name: statistics.median(values) for name, values in seconds.items()}


def timings(
    run: Callable[[], object], parts: dict[str, nn.Module], device: torch.device, repeats: int, warm_up: int
) -> dict[str, list[float]]:
    """Return the seconds of each of `repeats` calls of `run` (`total`), and of each part's forward in it.

    A call ends when `device` has finished. Parts of a GPU's work are timed by events in its stream, which do not make
    it wait. `warm_up` calls come first; a part that does not run is left out.
    """
    seconds: dict[str, list[float]] = {}
    for _ in range(warm_up):
        run()
    clock = _Events() if device.type == "cuda" else _Clock()
    with _around(parts, clock.now, clock.part):
        for _ in range(repeats):
            clock.synchronize()
            begun = time.perf_counter()
            run()
            clock.synchronize()
            seconds.setdefault("total", []).append(time.perf_counter() - begun)
            for name, value in clock.parts().items():
                seconds.setdefault(name, []).append(value)
    return seconds


class _Clock:
    """Times parts of a CPU's work, each from `now()` to `part(name, then)`."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[Any, Any]] = {}

    def synchronize(self) -> None:
        """Wait until the device has finished."""

    def now(self) -> Any:
        return time.perf_counter()

    def part(self, name: str, begun: Any) -> None:
        self._spans[name] = begun, self.now()

    def parts(self) -> dict[str, float]:
        """Return the seconds of each part, and forget them."""
        spans, self._spans = self._spans, {}
        return {name: self._between(*span) for name, span in spans.items()}

    def _between(self, begun: Any, ended: Any) -> float:
        return ended - begun


class _Events(_Clock):
    """Times parts of a GPU's work; the times are known once the GPU is synchronised."""

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def now(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, begun: Any, ended: Any) -> float:
        return begun.elapsed_time(ended) / 1000


@contextmanager
def _around(
    parts: dict[str, nn.Module], before: Callable[[], Any], after: Callable[[str, Any], object]
) -> Iterator[None]:
    """Call `before()` and `after(name, result of before)` around the forward of each part."""
    stack: list[Any] = []
    handles = []
    for name, part in parts.items():
        handles.append(part.register_forward_pre_hook(lambda *_: stack.append(before())))
        handles.append(part.register_forward_hook(lambda *_, name=name: after(name, stack.pop())))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of live tensors that operations have made."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def start(self) -> tuple[int, int]:
        """Begin a measurement, inside of others."""
        outer, self.peak = self.peak, self.live
        return outer, self.live

    def peak_since(self, started: tuple[int, int]) -> int:
        """End the measurement that `start` began; return the peak of live bytes, less those that lived before it."""
        outer, live = started
        added = self.peak - live
        self.peak = max(outer, self.peak)
        return added

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage not in self._known:
                    self._known.add(storage)
                    self.live += storage.nbytes()
                    self.peak = max(self.peak, self.live)
                    weakref.finalize(storage, self._free, storage.nbytes())
        return result

    def _free(self, size: int) -> None:
        self.live -= size
