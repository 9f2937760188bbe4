"""One small network of a family of timm as a backbone: its levels for an odd image size, or why it is refused."""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch

from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.backbones.timm import TimmBackbone
from fastfcn_pl.models.backbones.vit_pyramid import ViTPyramid

_SMALL = ("test_", "atto", "femto", "pico", "nano", "tiny", "xx_small", "xxs", "small", "_18", "18", "b0", "lite")
_CANDIDATES = 6


@dataclass(frozen=True)
class Outcome:
    """What became of the network `name`."""

    name: str
    option: str
    """`any timm net`, `vit_pyramid`, or empty if it is refused."""
    strides: tuple[int, ...] = ()
    tile: int | None = None
    untrained: tuple[str, ...] = ()
    """Weights without a gradient."""
    reason: str = ""


def small_network(family: str) -> str:
    """Return the network of the family with the fewest parameters, among the first by names that say so."""
    names = sorted(timm.list_models(module=family), key=lambda name: (not any(w in name for w in _SMALL), len(name)))
    return min(names[:_CANDIDATES], key=_parameters)


def _parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters())


def outcome(family: str, height: int = 97, width: int = 129) -> Outcome:
    """Train the network for a step on two images; raises AssertionError if its levels are not as it says."""
    name, option = small_network(family), "any timm net"
    torch.manual_seed(0)
    try:
        try:
            backbone: TimmBackbone | ViTPyramid = TimmBackbone(name=name, output_stride=32, pretrained=False)
        except UserError as error:
            if "model/backbone=vit_pyramid" not in str(error):
                raise
            option = "vit_pyramid"
            backbone = ViTPyramid(
                name=name,
                blocks=None,
                width=16,
                tile_size=None,
                pretrained=False,
                grad_checkpointing=False,
                drop_path_rate=0.0,
            )
    except UserError as error:
        return Outcome(name, "", reason=str(error).split(" does not serve: ")[-1].split("; take a")[0])
    levels, info = backbone.train()(torch.randn(2, 3, height, width)), backbone.out_info
    expected = [(2, c, -(-height // s), -(-width // s)) for c, s in zip(info.channels, info.strides, strict=True)]
    assert [tuple(level.shape) for level in levels] == expected
    torch.stack([level.square().mean() for level in levels]).sum().backward()
    untrained = tuple(n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None)
    return Outcome(name, option, info.strides, backbone._layout.tile, untrained)
