"""Comparison of a faster network with the plain one, before it is used."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastfcn_pl.acceleration.depthwise_conv import use_plain_depthwise
from fastfcn_pl.acceleration.known_modules import foreign_hook
from fastfcn_pl.acceleration.output_uses import Uses
from fastfcn_pl.models.segmenter import Segmenter

_SIZES = (97, 129), (96, 128), (224, 224), (256, 512), (512, 512)
"""Sizes of probes, odd ones and multiples of 32: the first two that the network takes are compared."""
_TOLERANCE = 1e-4
"""Largest error in full precision, as a share of the logits' spread."""
_TOLERANCE_LOW = 2.0
"""Largest error in half precision, as a multiple of what rounding changes in the plain network's logits."""


class _DiffersError(Exception):
    """The network does not compute what the plain one does; the message says how."""


def checked(
    model: Segmenter, optimize: Callable[[Segmenter, Uses], None], dtype: torch.dtype | None = None
) -> Segmenter | None:
    """Return a copy of `model` in eval mode, changed by `optimize(copy, its uses)`, once it is known to be right.

    Its logits are compared with those of the plain network, under autocast to `dtype` if given. The result is None,
    and one line says why, if they differ, if the network cannot be copied, changed or run, or if somebody else's hooks
    watch it.
    """
    try:
        device = next(model.parameters()).device
        if hooked := foreign_hook(model):
            raise _DiffersError(f"there is a hook on {hooked}")
        with torch.inference_mode(False), torch.no_grad(), _undisturbed(device):
            network = plain_copy(model)
            uses = Uses(network)
            probe = _Probe(network, uses, device, dtype)
            optimize(network, uses)
            probe.check(network)
    except Exception as error:  # a user's code may fail in any way when it is traced or changed
        reason = (
            str(error)
            if isinstance(error, _DiffersError)
            else f"{type(error).__name__}: {' '.join(str(error).split())}"
        )
        _say(f"{_parts(model)} run as they are, without acceleration: {reason[:200]}")
        return None
    return network


class _Probe:
    """Images, and the plain network's logits for them."""

    def __init__(self, network: Segmenter, uses: Uses, device: torch.device, dtype: torch.dtype | None) -> None:
        self._autocast, weight = (device.type, dtype), next(network.parameters())
        self._images: list[Tensor] = []
        self._expected: list[Tensor] = []
        self._buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        refusal: Exception | None = None
        generator = torch.Generator().manual_seed(0)
        for size in _SIZES:
            image = torch.randn(1, network.in_chans, *size, generator=generator).to(device, weight.dtype)
            if weight.dim() == 4 and not weight.is_contiguous():
                image = image.contiguous(memory_format=torch.channels_last)
            try:
                with uses.watched():
                    self._expected.append(self._logits(network, image))
            except Exception as error:  # it may take some sizes only
                refusal = error
                continue
            self._images.append(image)
            if len(self._images) == 2:
                break
        if not self._images:
            raise _DiffersError(f"it takes no image of {', '.join(f'{h}x{w}' for h, w in _SIZES)} ({refusal})")
        self._rounded = [self._logits(network, image, *self._autocast) for image in self._images] if dtype else []

    def check(self, network: Segmenter) -> None:
        """Raise `_DiffersError` if the logits of `network` are not those of the plain one."""
        for i, (image, expected) in enumerate(zip(self._images, self._expected, strict=True)):
            logits = self._logits(network, image, *self._autocast)
            if logits.shape != expected.shape:
                raise _DiffersError(f"logits of {tuple(image.shape[2:])} pixels have another size when accelerated")
            spread = _spread(expected)
            allowed = _TOLERANCE * spread + 1e-6 * _largest(expected)
            if self._rounded:
                allowed += _TOLERANCE_LOW * _error(self._rounded[i], expected)
            elif expected.dtype not in (torch.float32, torch.float64):
                allowed = 16 * torch.finfo(expected.dtype).eps * spread
            error = _error(logits, expected)
            if not error <= allowed:
                raise _DiffersError(f"accelerated, its logits are off by {error / (spread or 1):.2g} of their spread")

    def _logits(
        self, network: Segmenter, image: Tensor, device: str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the logits of `network` for `image`, under autocast to `dtype` if given; buffers stay as they are."""
        torch.manual_seed(0)  # for networks that draw
        with torch.autocast(device or image.device.type, dtype, enabled=dtype is not None):
            logits = network(image).logits
        for buffer, value in self._buffers:
            buffer.copy_(value)
        return logits


def _error(logits: Tensor, expected: Tensor) -> float:
    """Return the largest difference; equal infinities do not differ, and NaN differs from everything."""
    logits, expected = logits.double(), expected.double()
    return float(torch.where(logits == expected, 0.0, (logits - expected).abs()).max())


def _spread(logits: Tensor) -> float:
    finite = logits[logits.isfinite()].double()
    return float(finite.std()) if len(finite) > 1 else 0.0


def _largest(logits: Tensor) -> float:
    return float(logits[logits.isfinite()].abs().max()) if logits.isfinite().any() else math.nan


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Restore random generators afterwards, and compute in the full precision of tensors."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        cudnn.allow_tf32 = matmul.allow_tf32 = False
        try:
            yield
        finally:
            cudnn.allow_tf32, matmul.allow_tf32 = before


def plain_copy(model: Segmenter) -> Segmenter:
    """Return a copy in eval mode, in torch's own layers.

    Tensors that were computed from weights, as weight norms keep them, are copied as they are.
    """
    computed = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    memo = {id(tensor): tensor.detach().clone() for tensor in computed if not tensor.is_leaf}
    network = copy.deepcopy(model, memo).eval()
    use_plain_depthwise(network)
    return network


def _parts(model: nn.Module) -> str:
    names = [type(part).__name__ for part in model.children()]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else type(model).__name__


def _say(line: str) -> None:
    if not (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0):
        print(line)
