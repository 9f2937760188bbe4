"""FPN as the frame of upsamplers: its levels, its cost by an independent formula, and configurations of before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from fastfcn_pl.config import build, validation
from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.cost import cost
from fastfcn_pl.models.necks.fpn import FPN
from fastfcn_pl.models.necks.upsamplers.dysample import DySample
from fastfcn_pl.models.necks.upsamplers.interpolation import Bilinear
from tests.conftest import TINY

CHANNELS = (4, 6, 8, 10)
FINE = [*TINY, "model/neck=fpn", "model.neck.width=8"]


def _levels(strides: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(2, c, -(-97 // s), -(-129 // s)) for c, s in zip(CHANNELS, strides, strict=True)]


@pytest.mark.parametrize(("output_level", "stride"), [(2, 4), (3, 8)])
def test_the_map_has_the_size_of_the_output_level(output_level: int, stride: int) -> None:
    strides = (4, 8, 16, 32)
    neck = FPN(FeatureInfo(CHANNELS, strides), True, width=5, upsampler=Bilinear, output_level=output_level)
    *levels, joined = neck(_levels(strides))
    assert (neck.out_info.channels[-1], neck.out_info.strides[-1]) == (5, stride)
    assert joined.shape == (2, 5, -(-97 // stride), -(-129 // stride))
    assert len(levels) == 4
    joined.square().sum().backward()
    assert all(parameter.grad is not None for parameter in neck.parameters())


def test_levels_are_added_from_the_top_down() -> None:
    """Without laterals and smoothing, the map is the sum of the levels, each enlarged step by step."""
    neck = FPN(FeatureInfo((3, 3, 3), (8, 16, 32)), True, width=3, upsampler=Bilinear, output_level=3)
    neck.laterals, neck.smooth = nn.ModuleList(nn.Identity() for _ in range(3)), nn.Identity()
    c3, c4, c5 = (torch.randn(1, 3, 16 // s, 24 // s) for s in (1, 2, 4))
    double = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(neck([c3, c4, c5])[-1], c3 + double(c4 + double(c5)))


def test_a_dilated_backbone_is_joined_by_interpolation_only() -> None:
    info = FeatureInfo(CHANNELS, (4, 8, 8, 8))
    neck = FPN(info, True, width=8, upsampler=Bilinear, output_level=3)
    assert neck.out_info.strides == (4, 8, 8, 8, 8)
    assert neck(_levels(info.strides))[-1].shape == (2, 8, 13, 17)
    dysample = partial(DySample, style="lp", groups=4, dynamic_scope=False)
    with pytest.raises(UserError, match=r"^DySample enlarges maps, but two levels that the neck joins have the same"):
        FPN(info, True, width=8, upsampler=dysample, output_level=3)
    with pytest.raises(UserError, match=r"FPN with output_level=2 joins levels of strides"):
        FPN(info, True, width=8, upsampler=Bilinear, output_level=2)


def test_a_configuration_of_before_is_that_of_interpolation(make_config: Callable[..., DictConfig]) -> None:
    cfg = make_config(*FINE)
    model = build.model(cfg, 5).eval()
    OmegaConf.set_struct(cfg, False)
    for key in ("upsampler", "output_level"):
        del cfg.model.neck[key]
    validation.check(cfg)
    old = build.model(cfg, 5).eval()
    assert [name for name in old.state_dict() if name.startswith("neck.upsamplers")] == []
    old.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 96)
    assert torch.equal(old(x).logits, model(x).logits)


def test_fpn_128_takes_an_upsampler_too(make_config: Callable[..., DictConfig]) -> None:
    neck = make_config("model/neck=fpn_128", "model/neck/upsampler=dysample").model.neck
    assert (neck.width, neck.upsampler._target_.rsplit(".", 1)[-1]) == (128, "DySample")


WIDTH, COMPRESSED, WINDOW, LOGITS = 64, 64, 25, 9 * 25
"""Widths of the options and of the network below; a 3x3 convolution to the weights of a window."""
OPERATIONS: dict[str, Callable[[int], int]] = {
    "bilinear": lambda pixels: 0,
    "nearest": lambda pixels: 0,
    "carafe": lambda pixels: pixels * (WIDTH * COMPRESSED + 4 * COMPRESSED * LOGITS) + 4 * pixels * WINDOW * WIDTH,
    "dysample": lambda pixels: pixels * WIDTH * 2 * 4 * 4,
    "sapa": lambda pixels: 5 * pixels * WIDTH * 64 + 4 * pixels * WINDOW * 64 + 4 * pixels * WINDOW * WIDTH,
    "fade": lambda pixels: (
        5 * pixels * (WIDTH * COMPRESSED + COMPRESSED * LOGITS) + pixels * WIDTH + 4 * pixels * WINDOW * WIDTH
    ),
}
"""Multiply-accumulates of one step from so many pixels to four times as many, from the papers' formulas."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_cost_of_an_upsampler_is_that_of_its_formula(name: str, make_config: Callable[..., DictConfig]) -> None:
    with torch.device("meta"):
        models = [
            build.model(
                make_config(*TINY, "model/neck=fpn", f"model.neck.width={WIDTH}", f"model/neck/upsampler={o}"), 5
            )
            for o in ("bilinear", name)
        ]
    frame, whole = (cost(model, (256, 256))["neck"].gmacs for model in models)
    expected = sum(map(OPERATIONS[name], (8 * 8, 16 * 16))) / 1e9
    assert whole - frame == pytest.approx(expected, rel=0.01, abs=1e-9)
