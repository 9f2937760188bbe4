"""The network without the parts that only train it, its batch norms folded, for images of every size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fastfcn_pl.acceleration.known_modules import is_convolution, is_norm_act, is_untouched
from fastfcn_pl.acceleration.output_uses import Uses
from fastfcn_pl.acceleration.probe import checked, plain_copy
from fastfcn_pl.models.heads.encnet import EncNetHead
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.ops.fast_paths import accelerates, is_enabled
from fastfcn_pl.ops.interpolate import resize_logits


def fold(model: Segmenter, *, accelerate: bool = True) -> Segmenter:
    """Return a copy of `model` in eval mode that computes the same logits with fewer operations.

    It has no auxiliary head and no branch for the SE loss. Batch norms after a convolution are part of it, and adaptive
    pools are products with matrices, which exporters take at any size. Parts for which that is not proved to be the
    same stay as they are. Without `accelerate` the copy is the plain network.
    """
    network = checked(model, simplify) if accelerates(accelerate) and is_enabled("fold") else None
    return plain_copy(model) if network is None else network


def simplify(network: Segmenter, uses: Uses) -> None:
    """Change `network`, which is in eval mode, to what `fold` returns."""
    if type(network) is Segmenter and is_untouched(network):
        network.aux_head = None
        if type(network.head) is EncNetHead and network.head.se_layer is not None:
            network.head.se_layer, network.head.extra_outputs = None, ()
    for module in list(network.modules()):
        if type(module) is nn.BatchNorm2d or is_norm_act(module):
            _fold(module, uses)
        elif type(module) is nn.AdaptiveAvgPool2d and is_untouched(module):
            module.__class__ = IntervalPool  # type: ignore[assignment]


class IntervalPool(nn.Module):
    """Adaptive average pool, as products with matrices that are built from the map's size.

    `output_size` is as torch's: the cells of a side, of both sides, or None for as many as the map has.
    """

    output_size: int | tuple[int | None, ...] | None

    def __init__(self, output_size: int | tuple[int | None, ...] | None) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        size = self.output_size
        rows, columns = size if isinstance(size, (tuple, list)) else (size, size)
        if rows == columns == 1:
            return x.mean((-2, -1), keepdim=True)
        if rows is not None:
            x = self._means(rows, x.shape[-2], x) @ x
        return x if columns is None else x @ self._means(columns, x.shape[-1], x).T

    @staticmethod
    def _means(side: int, length: int, x: Tensor) -> Tensor:
        """Return the matrix `(side, length)` of each cell's share in the pixels that lie in it, even partly."""
        cells, pixels = torch.arange(side, device=x.device), torch.arange(length, device=x.device)
        first = (cells * length) // side
        end = ((cells + 1) * length + side - 1) // side
        inside = ((pixels >= first[:, None]) & (pixels < end[:, None])).to(x.dtype)
        return inside / inside.sum(1, keepdim=True)


class FoldedNorm(nn.Module):
    """The rest of a batch norm that the convolution `conv` computes: its attributes, and timm's activation inside it.

    Its weights are no parameters of the network any more, but a forward may still ask for them.
    """

    conv: tuple[nn.Conv2d]  # a tuple: it is none of its modules

    def forward(self, x: Tensor) -> Tensor:
        activation = self._modules.get("act")
        return x if activation is None else activation(x)


def _fold(norm: Any, uses: Uses) -> None:
    """Fold a batch norm into the convolution whose output it takes, if both do what they seem to do."""
    fixed = norm.running_mean is not None and norm.running_var is not None and not norm.training
    makers = uses.makers(norm)
    if not fixed or len(makers) != 1 or type(getattr(norm, "drop", None)) not in (type(None), nn.Identity):
        return
    conv: Any = makers.pop()
    if not is_convolution(conv) or conv.weight.dtype != norm.running_var.dtype:
        return
    statistics = norm.running_mean, norm.running_var, norm.eps
    conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics, norm.weight, norm.bias)
    for tensors in (norm._parameters, norm._buffers):
        vars(norm).update(tensors)
        tensors.clear()
    norm.__class__, norm.conv = FoldedNorm, (conv,)


def activations_inside(
    network: Segmenter, uses: Uses, kinds: tuple[type[nn.Module], ...], can: Callable[[nn.Conv2d], bool]
) -> dict[nn.Conv2d, nn.Module]:
    """Return activations of exactly these `kinds` by the convolutions that may compute them, all of which `can`.

    They are in place, and nothing else takes the output of these convolutions, whose batch norms are folded.
    """
    activations: dict[nn.Conv2d, nn.Module] = {}
    owners = {norm.act: norm for norm in network.modules() if type(norm) is FoldedNorm and "act" in norm._modules}
    for activation in network.modules():
        if type(activation) not in kinds or not getattr(activation, "inplace", False):
            continue
        norm = owners.get(activation)
        makers = uses.makers(activation)
        if norm is not None:
            makers = {norm} if uses.is_called_by_parent(activation) else set()
        convs: list[Any] = [maker.conv[0] if type(maker) is FoldedNorm else maker for maker in makers]
        if not any("act" in maker._modules for maker in makers if maker is not norm) and all(map(can, convs)):
            activations |= dict.fromkeys(convs, activation)
    return activations


class ImageSegmenter(nn.Module):
    """A folded network: images `(B, C, H, W)` as they are read, to labels `(B, H, W)` uint8, or to logits at H x W.

    `mean` and `std` `(1, C, 1, 1)` are those of these images; `output` is `labels` or `logits`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Segmenter, mean: Tensor, std: Tensor, output: str, accelerate: bool = True) -> None:
        super().__init__()
        self.model = fold(model, accelerate=accelerate).to(memory_format=torch.contiguous_format)
        self.output = output
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, value.clone())

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model((images.float() - self.mean) / self.std).logits
        logits = resize_logits(logits, images.shape[-2:], self.model.align_corners)
        return logits.argmax(1).to(torch.uint8) if self.output == "labels" else logits
