"""Heads, backbones and layers as users write them: acceleration may change some, and must leave others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.necks.none import NoNeck
from fastfcn_pl.models.segmenter import Backbone, Segmenter

WIDTH = 8


class StandardizedConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class DoublingConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x).tanh()


class ShiftingNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.3 * x.mean((2, 3), keepdim=True)


class ChannelNorm(nn.Module):
    """A user's own norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-3).sqrt()


def _conv(**options: object) -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, **{"padding": 1, "bias": False, **options})  # type: ignore[arg-type]


def _patched() -> nn.Conv2d:
    conv = _conv()
    conv.forward = lambda x: F.conv2d(x, conv.weight, padding=1).abs()  # type: ignore[method-assign]
    return conv


CONVS: dict[str, Callable[[], nn.Module]] = {
    "plain": _conv,
    "bias": lambda: _conv(bias=True),
    "reflect": lambda: _conv(padding_mode="reflect"),
    "same": lambda: _conv(padding="same", dilation=2),
    "depthwise": lambda: _conv(groups=WIDTH),
    "dilated depthwise": lambda: _conv(groups=WIDTH, padding=2, dilation=2),
    "pointwise": lambda: nn.Conv2d(WIDTH, WIDTH, 1),
    "standardized": lambda: StandardizedConv(WIDTH, WIDTH, 3, padding=1),
    "doubling": lambda: DoublingConv(WIDTH, WIDTH, 3, padding=1),
    "patched": _patched,
    "weight norm": lambda: weight_norm(_conv()),
    "parametrized weight norm": lambda: parametrizations.weight_norm(_conv()),
    "spectral norm": lambda: spectral_norm(_conv()),
    "parametrized spectral norm": lambda: parametrizations.spectral_norm(_conv()),
    "pruned": lambda: prune.l1_unstructured(_conv(), "weight", 0.4),
}
NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm2d(WIDTH),
    "not affine": lambda: nn.BatchNorm2d(WIDTH, affine=False),
    "no statistics": lambda: nn.BatchNorm2d(WIDTH, track_running_stats=False),
    "shifting": lambda: ShiftingNorm(WIDTH),
    "group": lambda: nn.GroupNorm(2, WIDTH),
    "own": lambda: ChannelNorm(WIDTH),
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu in place": lambda: nn.ReLU(inplace=True),
    "relu": nn.ReLU,
    "relu6 in place": lambda: nn.ReLU6(inplace=True),
    "silu in place": lambda: nn.SiLU(inplace=True),
    "gelu": nn.GELU,
}


class Block(nn.Module):
    """`(B, WIDTH, H, W)` to the same, computed as `form` says."""

    def __init__(self, form: str, conv: str, norm: str, activation: str) -> None:
        super().__init__()
        self.compute = FORMS[form]
        self.conv, self.norm, self.other, self.act = (
            CONVS[conv](),
            NORMS[norm](),
            NORMS[norm](),
            ACTIVATIONS[activation](),
        )
        self.kept: Tensor | None = None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        return self.compute(self, x)


def _read_before(b: Block, x: Tensor) -> Tensor:
    y = b.norm(b.conv(x))
    before = y * 1.5
    return b.act(y) + before


def _read_after(b: Block, x: Tensor) -> Tensor:
    y = b.norm(b.conv(x))
    return b.act(y) + y


def _by_size(b: Block, x: Tensor) -> Tensor:
    y = b.conv(x)
    return b.norm(y) + y if x.shape[-1] > 20 else b.norm(y)


def _by_large_size(b: Block, x: Tensor) -> Tensor:
    y = b.conv(x)
    return b.norm(y) + y if x.shape[-1] > 36 else b.norm(y)


def _changed_between(b: Block, x: Tensor) -> Tensor:
    y = b.conv(x)
    y += 0.5
    return b.norm(y)


def _keeps(b: Block, x: Tensor) -> Tensor:
    b.kept = b.conv(x)
    out = b.act(b.norm(b.kept))
    kept, b.kept = b.kept, None
    return out + kept


def _own_use_of_the_weight(b: Block, x: Tensor) -> Tensor:
    weight = b.conv.weight
    own = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=WIDTH // weight.shape[1])
    return b.norm(b.conv(x)) + own


def _both(b: Block, x: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    y = b.conv(x)
    return join(b.norm(y), y)


FORMS: dict[str, Callable[[Block, Tensor], Tensor]] = {
    "chain": lambda b, x: b.act(b.norm(b.conv(x))),
    "residual": lambda b, x: _both(b, x, lambda z, y: z + y),
    "gate": lambda b, x: _both(b, x, lambda z, y: z.sigmoid() * y),
    "with a relu": lambda b, x: _both(b, x, lambda z, y: z + 0.5 * y.relu()),
    "with a clone": lambda b, x: _both(b, x, lambda z, y: b.act(z) + y.clone()),
    "with a view": lambda b, x: _both(b, x, lambda z, y: z + y.flatten(2).mean(2)[..., None, None]),
    "concatenation": lambda b, x: _both(b, x, lambda z, y: torch.cat([z, y], 1).unflatten(1, (2, -1)).sum(1)),
    "two norms": lambda b, x: _both(b, x, lambda z, y: z + b.other(y)),
    "shared convolution": lambda b, x: b.other(b.conv(b.act(b.norm(b.conv(x))))),
    "called twice": lambda b, x: b.act(b.norm(b.conv(x))) + b.act(b.norm(b.conv(x * 0.5))),
    "reused activation": lambda b, x: b.act(b.act(b.norm(b.conv(x))) - x),
    "read before": _read_before,
    "read after": _read_after,
    "by size": _by_size,
    "by large size": _by_large_size,
    "changed between": _changed_between,
    "keeps": _keeps,
    "asks for attributes": lambda b, x: b.norm(b.conv(x)) * getattr(b.conv, "out_channels", 1) / b.conv.stride[0],
    "own use of the weight": _own_use_of_the_weight,
    "own use of statistics": lambda b, x: (
        b.norm(b.conv(x)) - getattr(b.norm, "running_mean", None).sum()
        if getattr(b.norm, "running_mean", None) is not None
        else b.norm(b.conv(x))
    ),
}
Blocks = list[tuple[str, str, str, str]]
"""Forms of blocks, and their convolutions, norms and activations, by name."""
blocks = st.tuples(*(st.sampled_from(sorted(names)) for names in (FORMS, CONVS, NORMS, ACTIVATIONS)))


class Camera(Backbone):
    """A level at stride 4."""

    out_info = FeatureInfo((WIDTH,), (4,))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)

    def __init__(self, blocks: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTH, 7, 4, 3, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.blocks(self.stem(x))]


class Head(nn.Module):
    """The blocks one after the other, and a classifier."""

    def __init__(self, blocks: Sequence[nn.Module], num_classes: int) -> None:
        super().__init__()
        self.blocks, self.classifier = nn.ModuleList(blocks), nn.Conv2d(WIDTH, num_classes, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels[-1]
        for block in self.blocks:
            x = block(x)
        return self.classifier(x)


def network(head: Sequence[tuple[str, str, str, str]], backbone: Sequence[tuple[str, str, str, str]] = ()) -> Segmenter:
    """Return a network of blocks in eval mode, with weights and statistics as if it were trained."""
    torch.manual_seed(0)
    model = Segmenter(
        5,
        backbone=Camera([Block(*block) for block in backbone]),
        neck=NoNeck,  # type: ignore[arg-type]
        head=lambda info, classes, align_corners: Head([Block(*block) for block in head], classes),
        aux_head=None,
        align_corners=False,
    )
    return seem_trained(model)


def seem_trained(model: Segmenter) -> Segmenter:
    """Give norms statistics and weights as if they were trained, and return `model` in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.4, 2.5)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()
