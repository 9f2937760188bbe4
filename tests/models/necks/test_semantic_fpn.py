"""Semantic FPN against mmsegmentation's and detectron2's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.necks.semantic_fpn import DoublingBranches, FeaturePyramid, SemanticFPN
from tests.support import neck_parity


def neck(hyper: dict[str, Any]) -> nn.Module:
    info = FeatureInfo(tuple(hyper["in_channels"]), tuple(hyper["feature_strides"]))
    assert hyper["width"] == hyper["head_channels"]
    return SemanticFPN(info, True, width=hyper["width"], pyramid_expansion=1, norm="batch", groups=32, output_level=2)


def pyramid(hyper: dict[str, Any]) -> nn.Module:
    return FeaturePyramid(hyper["in_channels"], hyper["out_channels"])


def branches(hyper: dict[str, Any]) -> nn.Module:
    norm = {"GN": "group", "": "none"}[hyper["norm"]]
    return DoublingBranches(hyper["in_channels"], hyper["conv_dims"], 4, norm=norm, groups=32)


def fuse(module: nn.Module, *levels: torch.Tensor) -> Any:
    maps = module(list(levels))
    return maps[-1] if isinstance(module, SemanticFPN) else maps


def mmsegmentation(module: nn.Module) -> dict[str, str]:
    """Return the published names of our modules: neighbours of a convolution belong to its block."""
    names = {
        f"{owner}{ours}.{i}": f"{published}{theirs}.{i}.conv"
        for owner, published in (("", ""), ("pyramid.", "neck."))
        for ours, theirs in (("laterals", "lateral_convs"), ("outputs", "fpn_convs"))
        for i in range(4)
    }
    for level in range(4):
        for block in range(max(level, 1)):
            # Ours: convolution, norm, ReLU and, but for the first level, upsampling. Theirs: block, upsampling.
            first, theirs = block * 4, f"decode_head.scale_heads.{level}.{2 * block}"
            names[f"branches.branches.{level}.{first}"] = f"{theirs}.conv"
            names[f"branches.branches.{level}.{first + 1}"] = f"{theirs}.bn"
    return names


def detectron2(module: nn.Module) -> dict[str, str]:
    names = {
        f"{ours}.{i}": f"{theirs}{i + 2}"
        for ours, theirs in (("laterals", "fpn_lateral"), ("outputs", "fpn_output"))
        for i in range(4)
    }
    has_norm = any(isinstance(m, nn.GroupNorm) for m in module.modules())
    for level in range(4):
        for block in range(max(level, 1)):
            first, theirs = block * (4 if has_norm else 3), f"p{level + 2}.{2 * block}"
            names[f"branches.{level}.{first}"] = theirs
            if has_norm:
                names[f"branches.{level}.{first + 1}"] = f"{theirs}.norm"
    return names


CASES: dict[str, tuple[Callable[[nn.Module], dict[str, str]], dict[str, Callable[[dict[str, Any]], nn.Module]]]] = {
    "semantic_fpn_mmseg": (
        mmsegmentation,
        {"neck_and_head_bn_odd_97x129": neck, "neck_and_head_bn_128x160": neck, "neck_only_odd_97x129": pyramid},
    ),
    "semantic_fpn_detectron2": (detectron2, {"head_GN": branches, "head_none": branches, "neck": pyramid}),
}


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, (_, names) in CASES.items() for name in names])
def test_outputs_loss_and_gradients_are_the_published_ones(file: str, name: str, shared: Path) -> None:
    cases = neck_parity.cases(shared / "parity" / "necks" / f"{file}.pt")
    rename, builders = CASES[file]
    assert builders.keys() == cases.keys()
    module = builders[name](cases[name]["hyper"])
    assert sum(parameter.numel() for parameter in module.parameters()) == cases[name]["parameter_count"]
    neck_parity.check(module, cases[name], rename(module), call=fuse)


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        ("layer", r"model\.neck\.norm=layer: use batch, group or none"),
        ("group", r"model\.neck\.groups=32 does not divide the 8 channels of model\.neck\.width"),
    ],
)
def test_norms_that_cannot_be_are_refused(norm: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DoublingBranches(8, 8, 3, norm=norm, groups=32)
