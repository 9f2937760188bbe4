"""PP-LiteSeg's decoder and its fusion module against PaddleSeg's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.necks.uafm import UAFM, PPLiteSegDecoder
from tests.support import neck_parity

INFO = FeatureInfo((2, 3, 4), (8, 16, 32))
SETTINGS: dict[str, Any] = {
    "width": 8,
    "shares": [1, 0.75, 0.5],
    "bins": [1, 2],
    "attention": "spatial",
    "max_pool": True,
    "output_level": 3,
}


def names(module: nn.Module) -> dict[str, str]:
    """Return the published names of our modules: theirs hold a convolution and its norm each."""
    published = {}
    for ours, part in module.named_modules():
        if isinstance(part, nn.Conv2d | nn.BatchNorm2d):
            owner, _, position = ours.rpartition(".")
            if owner.endswith("attention.layers"):
                owner = owner.replace("attention.layers", f"conv_xy_atten.{int(position) // 3}")
            owner = owner.replace("conv_low", "conv_x").replace("context.pools", "cm.stages").replace("context", "cm")
            if owner.startswith("fusions."):  # theirs begin with the finest level
                owner = f"arm_list.{2 - int(owner[8])}{owner[9:]}"
            published[ours] = f"{owner}.{'_conv' if isinstance(part, nn.Conv2d) else '_batch_norm'}"
    return published


def fusion(name: str, hyper: dict[str, Any]) -> nn.Module:
    attention = "spatial" if "SpAtten" in name else "channel" if "ChAtten" in name else "none"
    channels = hyper["x_ch"], hyper["y_ch"], hyper["out_ch"]
    return UAFM(*channels, attention=attention, max_pool=not name.endswith("_S"))


def decoder(hyper: dict[str, Any]) -> nn.Module:
    width, info = hyper["cm_out_ch"], FeatureInfo(tuple(hyper["backbone_out_chs"]), (8, 16, 32))
    shares = [channels / width for channels in reversed(hyper["arm_out_chs"])]
    settings = SETTINGS | {"width": width, "shares": shares, "bins": hyper["cm_bin_sizes"]}
    return PPLiteSegDecoder(info, True, **settings)


def all_maps(module: nn.Module, *levels: torch.Tensor) -> Any:
    """Return the finest map first, as published."""
    return module.fused_maps(list(levels))[::-1] if isinstance(module, PPLiteSegDecoder) else module(*levels)


CASES = [
    *("UAFM_SpAtten", "UAFM_SpAtten_S", "UAFM_ChAtten", "UAFM_ChAtten_S", "UAFM_plain_add"),
    "PPLiteSegHead_odd_97x129",
]


@pytest.mark.parametrize("name", CASES)
def test_outputs_loss_and_gradients_are_the_published_ones(name: str, shared: Path) -> None:
    """All but the running variances, which Paddle keeps biased."""
    cases = neck_parity.cases(shared / "parity" / "necks" / "uafm_pp_liteseg.pt")
    assert set(cases) == set(CASES)
    hyper = cases[name]["hyper"]
    module = decoder(hyper) if name.startswith("PPLiteSegHead") else fusion(name, hyper)
    assert sum(parameter.numel() for parameter in module.parameters()) == cases[name]["parameter_count"]
    neck_parity.check(module, cases[name], names(module), call=all_maps, buffers=["running_mean"])


def test_attention_weights_the_fine_map() -> None:
    """A weight of one leaves the fine map alone, and of zero the resized coarse one."""
    module = UAFM(2, 4, 4, attention="spatial", max_pool=True).eval()
    low, high, other = torch.randn(1, 2, 8, 8), torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4)
    norm = module.attention.layers[4]  # type: ignore[union-attr, index]
    norm.weight.data.zero_()
    norm.bias.data.fill_(100)
    assert torch.equal(module(low, high), module(low, other))
    norm.bias.data.fill_(-200)
    assert torch.equal(module(low, high), module(-low, high))


def test_a_share_for_each_level_is_required() -> None:
    with pytest.raises(UserError, match=r"model\.neck\.shares=\[1\]: output_level=3 needs one for each of 3 levels"):
        PPLiteSegDecoder(INFO, True, **SETTINGS | {"shares": [1]})
    with pytest.raises(UserError, match=r"model\.neck\.attention=pixel: use spatial, channel or none"):
        PPLiteSegDecoder(INFO, True, **SETTINGS | {"attention": "pixel"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": [1, 0.75, 0.01]}, r"model\.neck\.shares=\[1, 0\.75, 0\.01\] gives maps of \[8, 6, 0\] channels"),
        ({"width": 0}, r"model\.neck\.width=0 "),
        ({"bins": []}, r"model\.neck\.bins=\[\]: a pool needs"),
        ({"bins": [0, 2]}, r"model\.neck\.bins=\[0, 2\]: a pool needs"),
    ],
)
def test_maps_without_channels_and_pools_without_cells_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PPLiteSegDecoder(INFO, True, **SETTINGS | settings)


@pytest.mark.parametrize("attention", ["spatial", "channel", "none"])
def test_the_smallest_widths_and_maps_are_taken(attention: str) -> None:
    """One channel at each level, and pools with more cells than C5 has pixels."""
    neck = PPLiteSegDecoder(
        INFO, True, **SETTINGS | {"width": 1, "shares": [1, 1, 1], "bins": [1, 2, 4], "attention": attention}
    )
    c3, c4, c5 = (torch.randn(2, channels, side, side) for channels, side in zip(INFO.channels, (4, 2, 1), strict=True))
    assert neck([c3, c4, c5])[-1].shape == (2, 1, 4, 4)
