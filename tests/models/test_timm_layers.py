"""Depths of a timm network's parameters against timm's own groups, and stochastic depth."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.optim import param_groups_layer_decay
from torch import nn

from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.backbones import timm_layers
from fastfcn_pl.models.backbones.timm import TimmBackbone

NETWORKS = [
    "resnet18",
    "convnext_atto",
    "tf_efficientnet_lite0",
    "swin_tiny_patch4_window7_224",
    "test_vit",
    "hrnet_w18",
]
backbone_of = partial(TimmBackbone, output_stride=32, pretrained=False)


def _features(name: str) -> tuple[nn.Module, nn.Module]:
    """Return the features of a network and the whole one, on the meta device."""
    with torch.device("meta"):
        return timm.create_model(name, features_only=True), timm.create_model(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_depths_are_timms(name: str) -> None:
    features, whole = _features(name)
    depths = timm_layers.parameter_depths(features, name, {}, "")
    scales: dict[int, float] = {}
    decays: dict[int, float] = {}
    for group in param_groups_layer_decay(
        whole, weight_decay=0.1, layer_decay=0.5, no_weight_decay_list=_no_weight_decay(whole)
    ):
        for parameter in group["params"]:
            scales[id(parameter)], decays[id(parameter)] = group["lr_scale"], group["weight_decay"]
    undecayed = timm_layers.no_weight_decay(features, name, {}, "")
    assert depths.depths.keys() == {own for own, _ in features.named_parameters()}
    pairs = _pairs(features, whole)
    for own, parameter in pairs.items():
        assert 0.5 ** (depths.top - depths.depths[own]) == scales[id(parameter)], own
        assert (parameter.ndim <= 1 or own in undecayed) == (decays[id(parameter)] == 0), own
    assert 0 in depths.depths.values()
    assert depths.top > 5


def _no_weight_decay(whole: Any) -> set[str]:
    return whole.no_weight_decay() if hasattr(whole, "no_weight_decay") else set()


def _pairs(features: nn.Module, whole: nn.Module) -> dict[str, nn.Parameter]:
    """Return the whole network's parameters by their names in the features: the same without separators and wrapper."""

    def bare(name: str) -> str:
        return name.removeprefix("model.").replace(".", "").replace("_", "")

    theirs = {bare(name): parameter for name, parameter in whole.named_parameters()}
    return {name: theirs[bare(name)] for name, _ in features.named_parameters()}


@pytest.mark.slow
def test_position_embeddings_are_not_decayed() -> None:
    names = timm_layers.no_weight_decay(_features("test_vit")[0], "test_vit", {}, "net.")
    assert {"net.model.pos_embed", "net.model.cls_token"} <= names
    swin = backbone_of(name="swin_tiny_patch4_window7_224").no_weight_decay()
    assert len(swin) == 12
    assert all(name.startswith("net.layers_") and name.endswith("relative_position_bias_table") for name in swin)


@pytest.mark.slow
def test_a_network_without_known_layers_is_refused() -> None:
    backbone = backbone_of(name="caformer_s18")
    with pytest.raises(UserError, match=r"^model\.backbone\.name=caformer_s18: timm does not know the order"):
        backbone.parameter_depths()
    assert backbone.no_weight_decay() == set()


@pytest.mark.slow
def test_stochastic_depth_grows_with_depth_and_is_random_in_training_only() -> None:
    backbone = backbone_of(name="convnext_atto", drop_path_rate=0.5)
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert rates == sorted(rates)
    assert rates[-1] == 0.5
    x = torch.randn(2, 3, 64, 64)
    assert not torch.equal(backbone.train()(x)[-1], backbone(x)[-1])
    assert torch.equal(backbone.eval()(x)[-1], backbone(x)[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rate", "message"),
    [
        ("hrnet_w18", 0.1, r"^model\.backbone\.drop_path_rate=0\.1: hrnet_w18 has no stochastic depth"),
        ("resnet18", 1.0, r"^model\.backbone\.drop_path_rate=1\.0: use a number from 0"),
    ],
)
def test_a_rate_that_has_no_place_is_refused(name: str, rate: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        backbone_of(name=name, drop_path_rate=rate)
