"""Plain vision transformers as pyramids: levels are as published, at any size, and what cannot serve says why."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig
from torch import nn

from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.config import build
from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.backbones.simple_feature_pyramid import SimpleFeaturePyramid
from fastfcn_pl.models.backbones.timm import TimmBackbone
from fastfcn_pl.models.backbones.vit_pyramid import ViTPyramid
from fastfcn_pl.models.cost import cost
from tests.support import neck_parity

TINY_VIT = {
    "blocks": None,
    "width": 8,
    "tile_size": None,
    "pretrained": False,
    "grad_checkpointing": False,
    "drop_path_rate": 0.0,
}
pyramid_of = partial(ViTPyramid, **TINY_VIT)
SIZES = [(25, 33), (13, 17), (7, 9), (4, 5)]
"""Levels of an image of 97x129."""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["norm_LN", "norm_LN_7x9"])
def test_the_simple_feature_pyramid_is_the_published_one(case: str, shared: Path) -> None:
    published = neck_parity.cases(shared / "parity" / "necks" / "vitdet_sfp.pt")[case]
    rename = {f"levels.0.{i}": f"simfp_2.{i}" for i in (0, 1, 3)} | {"levels.1.0": "simfp_3.0"}
    for level, first, conv in ((0, 4, 4), (1, 1, 1), (2, 0, 0), (3, 1, 1)):
        for i in range(2):
            rename[f"levels.{level}.{first + 2 * i}"] = f"simfp_{level + 2}.{conv + i}"
            rename[f"levels.{level}.{first + 2 * i + 1}"] = f"simfp_{level + 2}.{conv + i}.norm"
    neck_parity.check(SimpleFeaturePyramid([384] * 4, 16, 64), published, rename, lambda x: [[x] * 4])


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_maps_of_any_stride_become_levels_at_4_to_32(stride: int) -> None:
    maps = [torch.randn(1, 16, 64 // stride, 96 // stride)] * 4
    levels = SimpleFeaturePyramid([16] * 4, stride, 8)(maps)
    assert [tuple(level.shape) for level in levels] == [(1, 8, 64 // s, 96 // s) for s in (4, 8, 16, 32)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "test_vit_relpos",  # takes one size only
        pytest.param("deit_tiny_patch16_224", marks=pytest.mark.slow),
        pytest.param("eva02_tiny_patch14_224", marks=pytest.mark.slow),  # has patches of 14 pixels
        pytest.param("xcit_nano_12_p8_224", marks=pytest.mark.slow),  # has patches of 8 pixels
        pytest.param("vit_small_patch16_dinov3", marks=pytest.mark.slow),  # rotates positions
        pytest.param("volo_d1_224", marks=pytest.mark.slow),  # begins at a finer stride
    ],
)
def test_levels_have_exact_strides_at_any_size_and_all_weights_train(name: str) -> None:
    backbone = pyramid_of(name=name)
    levels = backbone(torch.randn(2, 3, 97, 129))
    assert backbone.out_info == FeatureInfo((8, 8, 8, 8), (4, 8, 16, 32))
    assert [tuple(level.shape) for level in levels] == [(2, 8, *size) for size in SIZES]
    sum(level.square().sum() for level in levels).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.slow
def test_a_level_comes_from_the_block_that_is_named() -> None:
    """Levels as the network of timm itself gives them; later blocks are not even built."""
    backbone = pyramid_of(name="test_vit", blocks=[3, 0, 1, 3]).eval()
    assert len(backbone.net.model.blocks) == 4
    whole = timm.create_model("test_vit", dynamic_img_size=True).eval()
    whole.load_state_dict(backbone.net.model.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 96)
    maps = whole.forward_intermediates(x, indices=[0, 1, 3], intermediates_only=True)
    expected = backbone.pyramid([maps[2], maps[0], maps[1], maps[2]])
    for level, reference in zip(backbone(x), expected, strict=True):
        torch.testing.assert_close(level, reference)


@pytest.mark.slow
def test_all_levels_come_from_one_block_or_the_last() -> None:
    assert len(pyramid_of(name="test_vit", blocks=[1]).net.model.blocks) == 2
    assert len(pyramid_of(name="test_vit").net.model.blocks) == 6


@pytest.mark.slow
def test_tiles_are_seen_one_by_one() -> None:
    backbone = pyramid_of(name="test_vit_relpos", tile_size=64).eval()
    x = torch.randn(1, 3, 64, 128)
    maps = [backbone.net(tile)[0] for tile in x.split(64, dim=3)]
    expected = backbone.pyramid([torch.cat(maps, dim=3)] * 4)
    for level, reference in zip(backbone(x), expected, strict=True):
        torch.testing.assert_close(level, reference)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"name": "resnet18"}, r"resnet18 has strides \[2, 4, 8, 16, 32\]: use model/backbone=resnet50 model"),
        ({"name": "test_vi"}, "no such network; did you mean test_vit"),
        ({"name": "test_vit", "blocks": [6]}, r"blocks=\[6\]: give one block for all levels, or 4, of 0 to 5"),
        ({"name": "test_vit", "blocks": [1, 2]}, "give one block for all levels, or 4"),
        ({"name": "volo_d1_224", "blocks": [0, 1, 2, 3]}, r"they have strides \[8, 16, 16, 16\]"),
        ({"name": "test_vit_relpos", "tile_size": 50}, "tile_size=50: use a multiple of 32, or null"),
        (
            {"name": "convmixer_768_32"},
            "with patch_size=8, img_size=256, but its own patches of 7 pixels give none of the strides",
        ),
        ({"name": "levit_128s"}, r"levit_128s has strides \[16, 32, 64\]: take a vision transformer"),
    ],
)
def test_what_cannot_serve_says_why(keys: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        pyramid_of(**keys)


@pytest.mark.slow
def test_a_flat_network_and_its_options_are_refused_elsewhere(make_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match=r"all have stride 16.*use model/backbone=vit_pyramid, or take a net with"):
        TimmBackbone(name="test_vit", output_stride=32, pretrained=False)
    with pytest.raises(ConfigCompositionException, match=r"Could not override 'model\.backbone\.blocks'"):
        make_config("model/backbone=resnet50", "model.backbone.blocks=[2,5,8,11]")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
@pytest.mark.slow
def test_pretrained_weights_come_from_a_file_under_the_same_key(name: str, tmp_path: Path) -> None:
    net = timm.create_model(name)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    backbone = pyramid_of(name=name, pretrained=str(tmp_path / "net.pth"))
    loaded, given = backbone.net.model.state_dict(), net.state_dict()
    assert all(torch.equal(loaded[n], given[n]) for n in loaded if n.startswith("blocks"))
    assert torch.equal(loaded["pos_embed"], given["pos_embed"])


def _keep(kept: list[torch.Tensor], tensor: torch.Tensor) -> torch.Tensor:
    kept.append(tensor)
    return tensor


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing_but_memory() -> None:
    plain, saving = pyramid_of(name="test_vit"), pyramid_of(name="test_vit", grad_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    x, sizes = torch.randn(2, 3, 64, 64), []
    for net in (plain, saving):
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(partial(_keep, kept), lambda t: t):
            levels = net(x)
        sizes.append(sum(t.nbytes for t in kept))
        sum(level.square().sum() for level in levels).backward()
    for (key, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)
    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.slow
def test_attention_is_counted() -> None:
    """Multiply-accumulates of a block: 12 N C^2 of its linear layers, and 2 N^2 C of attention, for N tokens."""
    counted = cost(nn.ModuleDict({"net": _OnlyNet()}).net, (128, 160))["net"].gmacs * 1e9
    tokens, channels, depth = 8 * 10 + 1, 192, 12
    expected = depth * (12 * tokens * channels**2 + 2 * tokens**2 * channels) + 80 * 16 * 16 * 3 * channels
    assert counted == pytest.approx(expected, rel=1e-6)


class _OnlyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = pyramid_of(name="vit_tiny_patch16_224").net

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return self.net(x)


@pytest.mark.slow
def test_the_network_is_accelerated_to_the_same_results(
    make_config: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ["model.backbone.name=test_vit", "model.backbone.width=8", "model.neck.width=8", "model.head.channels=8"]
    cfg = make_config("model/backbone=vit_pyramid", "data=shapes", "model.backbone.pretrained=false", *keys)
    model = build.model(cfg, 5).eval()
    x = torch.randn(2, 3, 97, 129)
    with torch.no_grad():
        expected = model(x).logits
        torch.testing.assert_close(
            optimize_for_inference(model, device=torch.device("cpu"))(x).logits, expected, rtol=1e-4, atol=1e-5
        )
    assert capsys.readouterr().out == ""
