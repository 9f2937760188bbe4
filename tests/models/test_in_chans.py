"""Backbones and networks for images of another number of channels than three."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from omegaconf import DictConfig

import fastfcn_pl
from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.config import build
from fastfcn_pl.core.types import Bands, DatasetSpec, UserError
from fastfcn_pl.engine import checkpoint
from fastfcn_pl.engine.resume import start_from
from fastfcn_pl.evaluation.protocols import encoding
from fastfcn_pl.models.cost import cost
from fastfcn_pl.training.normalization import statistics
from tests.fakes.published import state_dict

BACKBONES = {
    "test_resnet": ["model.backbone.name=test_resnet"],
    "efficientnet_lite0": ["model/backbone=efficientnet_lite0"],
    "vit_pyramid": ["model/backbone=vit_pyramid", "model.backbone.name=test_vit", "model.backbone.width=8"],
}
SMALL = ["model.neck.width=8", "model.head.channels=8", "model.aux_head.channels=8", "run_dir=."]
FIELDS = ["data=folder", "data.root=.", "data.classes=[a,b]", "data.bands=[0,1,2,3,4]"]
SPEC = DatasetSpec("fields", ("a", "b"), ((0, 0, 0), (9, 9, 9)))
BANDS = Bands(((0, 1, 2, 3, 4),), (2, 1, 0), (1.0, 2, 3, 4, 5), (0.5, 1, 1, 1, 1))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_network_takes_the_channels_of_data_bands(name: str, make_config: Callable[..., DictConfig]) -> None:
    cfg = make_config(*BACKBONES[name], *SMALL, *FIELDS, "model.backbone.pretrained=false")
    model = build.model(cfg, 2).eval()
    assert model.in_chans == 5
    assert build.plain(cfg)["model"]["backbone"]["in_chans"] == 5  # as a checkpoint stores it
    assert model(torch.randn(1, 5, 64, 96)).logits.shape == (1, 2, 8, 12)
    optimize_for_inference(model, device=torch.device("cpu"))
    rgb = build.model(make_config(*BACKBONES[name], *SMALL, "model.backbone.pretrained=false"), 2)
    assert cost(model, (64, 96))["backbone"].gmacs > cost(rgb, (64, 96))["backbone"].gmacs
    assert rgb.in_chans == 3


@pytest.mark.parametrize("in_chans", [1, 5])
@pytest.mark.parametrize(
    ("name", "first", "backbone"),
    [
        ("test_resnet", "conv1.0.weight", "resnet50"),
        ("efficientnet_lite0", "conv_stem.weight", "efficientnet_lite0"),
        ("test_vit", "patch_embed.proj.weight", "vit_pyramid"),
    ],
)
def test_pretrained_weights_are_adapted_by_timm(
    name: str, first: str, backbone: str, in_chans: int, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    state = timm.create_model(name, pretrained=False).state_dict()
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    keys = {
        "backbone.name": name,
        "backbone.in_chans": in_chans,
        "backbone.pretrained": tmp_path / "weights.safetensors",
    }
    model = fastfcn_pl.create_model(num_classes=2, backbone=backbone, **keys)
    weight = next(p for n, p in model.backbone.named_parameters() if n.endswith(first))
    trained = state[first]
    if in_chans == 1:
        assert torch.allclose(weight, trained.sum(1, keepdim=True), atol=1e-6)
    else:
        assert torch.allclose(weight, trained[:, [0, 1, 2, 0, 1]] * 3 / 5, atol=1e-6)


def test_a_network_for_other_channels_is_refused() -> None:
    model = fastfcn_pl.create_model(num_classes=2, pretrained=False, backbone="resnet18")
    spec = DatasetSpec(SPEC.name, SPEC.classes, SPEC.palette, bands=BANDS)
    with pytest.raises(UserError, match=r"takes images of 3 channels, and fields has images of 5 bands .*in_chans=5$"):
        statistics(model, spec)
    keys = {"backbone.name": "test_resnet", "backbone.in_chans": 2}
    model = fastfcn_pl.create_model(num_classes=2, pretrained=False, **keys)
    with pytest.raises(UserError, match=r"takes images of 2 channels, and fields has RGB images: .*in_chans=3$"):
        statistics(model, SPEC)
    with pytest.raises(UserError, match=r"^model\.backbone\.in_chans=0: give the number"):
        fastfcn_pl.create_model(num_classes=2, pretrained=False, **{**keys, "backbone.in_chans": 0})


def test_the_papers_protocol_pads_bands_with_their_mean(make_config: Callable[..., DictConfig]) -> None:
    cfg = make_config(*BACKBONES["test_resnet"], *SMALL, *FIELDS, "model.backbone.pretrained=false")
    model = build.model(cfg, 2).eval()
    with torch.no_grad():
        keys = {"base_size": 60, "crop_size": 48, "scales": [1.0], "flip": True}
        assert encoding(model, torch.randn(1, 5, 40, 56), (40, 56), **keys).labels().shape == (1, 40, 56)


def test_published_weights_are_for_rgb(make_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    path = tmp_path / "official.pth"
    torch.save({"state_dict": state_dict("official", "resnet50s", "jpu fcn aux")}, path)
    classes = [f"c{i}" for i in range(59)]
    data = make_config("data=folder", "data.root=.", f"data.classes={classes}", "data.bands=[0,1,2,3]").data
    with pytest.raises(
        UserError, match=r"^the published network of .*official\.pth takes RGB images, not the images of 4"
    ):
        checkpoint.Checkpoint.read(path, data=data)


def test_a_run_from_weights_of_rgb_says_so(make_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    tiny = [*BACKBONES["test_resnet"], *SMALL, "model.backbone.pretrained=false"]
    module = build.module(make_config(*tiny), SPEC)
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(content, tmp_path / "rgb.ckpt")
    spec = DatasetSpec(SPEC.name, SPEC.classes, SPEC.palette, bands=BANDS)
    fresh = build.module(make_config(*tiny, *FIELDS), spec)
    report = start_from(str(tmp_path / "rgb.ckpt"), fresh)
    assert "its weights are for RGB images, and here are images of 5 bands [0, 1, 2, 3, 4]: the first layer" in report
    assert "model.backbone.net.conv1.0.weight (" in report
