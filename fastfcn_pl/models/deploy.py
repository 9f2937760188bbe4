"""The network that is shipped: what trains it taken off, batch norms folded, every size of image allowed."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fastfcn_pl.models.lean import LeanReLU
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.resize import resize_logits


def deployed(model: Segmenter) -> Segmenter:
    """Return a copy of `model` in eval mode that computes the same logits with fewer operations.

    It has no auxiliary head and no branch for the SE loss; batch norms behind a convolution are folded into it,
    adaptive pools are products with matrices, which exporters take at any size, and activations are torch's.
    """
    model = copy.deepcopy(model).eval()
    model.aux_head = None
    if getattr(model.head, "se_layer", None) is not None:
        model.head.se_layer, model.head.extra_outputs = None, ()  # type: ignore[assignment]
    _fold_batch_norms(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(parent, name, IntervalPool(_side(child)))
            elif isinstance(child, LeanReLU):
                setattr(parent, name, nn.ReLU(inplace=True))
    return model


def _side(pool: nn.AdaptiveAvgPool2d) -> int:
    assert isinstance(pool.output_size, int), "our heads pool to squares"
    return pool.output_size


class IntervalPool(nn.Module):
    """Adaptive average pool to `side` x `side` cells, as products with matrices that are built from the map's size."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        if self.side == 1:
            return x.mean((2, 3), keepdim=True)
        rows, columns = (self._means(x.shape[dim], x) for dim in (2, 3))
        return rows @ x @ columns.T

    def _means(self, length: int, x: Tensor) -> Tensor:
        """Return the matrix `(side, length)` of each cell's share in the pixels that lie in it, even partly."""
        cells, pixels = torch.arange(self.side, device=x.device), torch.arange(length, device=x.device)
        first = (cells * length) // self.side
        end = ((cells + 1) * length + self.side - 1) // self.side
        inside = ((pixels >= first[:, None]) & (pixels < end[:, None])).to(x.dtype)
        return inside / inside.sum(1, keepdim=True)


def behind_convolutions(model: Segmenter, kinds: tuple[type[nn.Module], ...]) -> dict[nn.Module, list[nn.Conv2d]]:
    """Return the modules of `kinds` that see nothing but outputs of convolutions, with these, as running it tells.

    A convolution that also runs without one of them behind it is none of these.
    """
    # By a tensor's id, which stays its own as long as it is kept, and its version, which in-place sums change.
    made: dict[tuple[int, int], tuple[nn.Conv2d, Tensor]] = {}
    found: dict[nn.Module, list[nn.Conv2d | None]] = {}
    calls: Counter[nn.Conv2d | None] = Counter()

    def remember(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        made[id(output), output._version] = conv, output
        calls[conv] += 1

    def follow(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        conv, _ = made.get((id(inputs[0]), inputs[0]._version), (None, None))
        found.setdefault(module, []).append(conv)
        calls[conv] -= 1

    hooks = [
        module.register_forward_hook(remember)
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(follow)
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, *kinds))
    ]
    with torch.no_grad():
        weight = next(model.parameters())
        model(torch.zeros(1, 3, 64, 64, device=weight.device, dtype=weight.dtype))
    for hook in hooks:
        hook.remove()
    return {
        module: [conv for conv in convs if conv is not None]
        for module, convs in found.items()
        if all(conv is not None and calls[conv] == 0 for conv in convs)
    }


def activations_inside(
    model: Segmenter, kinds: tuple[type[nn.Module], ...], can: Callable[[nn.Conv2d], bool]
) -> dict[nn.Conv2d, nn.Module]:
    """Return the activations of exactly these `kinds` that convolutions which `can` may compute inside, by convolution.

    They are in place: else the convolution's own output may be used, too.
    """
    found: dict[nn.Conv2d, nn.Module] = {}
    for activation, convs in behind_convolutions(model, kinds).items():
        if type(activation) in kinds and activation.inplace and all(map(can, convs)):
            found |= dict.fromkeys(convs, activation)
    return found


def _fold_batch_norms(model: Segmenter) -> None:
    """Fold each batch norm into the convolution whose output it takes."""
    found = behind_convolutions(model, (nn.BatchNorm2d,))
    pairs = {norm: convs[0] for norm, convs in found.items() if len(convs) == 1}
    for norm, conv in pairs.items():
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d) and child in pairs:
                setattr(parent, name, getattr(child, "act", nn.Identity()))  # timm's norms have an activation behind


class Deployed(nn.Module):
    """A whole network: uint8 RGB images `(B, 3, H, W)` of any size to labels `(B, H, W)` uint8, or to logits at H x W.

    `mean` and `std` `(1, 3, 1, 1)` are those of pixels of 0 to 255; `gives` is `labels` or `logits`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Segmenter, mean: Tensor, std: Tensor, gives: str) -> None:
        super().__init__()
        self.model, self.gives = deployed(model).to(memory_format=torch.contiguous_format), gives
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, value.clone())

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model((images.float() - self.mean) / self.std).logits
        logits = resize_logits(logits, images.shape[-2:], self.model.align_corners)
        return logits.argmax(1).to(torch.uint8) if self.gives == "labels" else logits
