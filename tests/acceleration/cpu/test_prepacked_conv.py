"""The network that CPUs run computes what the plain one does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from fastfcn_pl.acceleration.cpu import prepacked_conv as packing
from fastfcn_pl.acceleration.cpu import winograd
from fastfcn_pl.acceleration.cpu.prepacked_conv import PackedConv
from fastfcn_pl.acceleration.fold import fold
from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.config import build
from fastfcn_pl.models.cost import cost
from fastfcn_pl.models.segmenter import Segmenter
from tests.conftest import TINY
from tests.fakes.network import fill_statistics

HEADS = ["fcn", "psp", "aspp", "encnet", "aspp_plus", "uper"]
NECKS = ["jpu_x", "fpn", "bilinear", "none", "dilated", "dilated16"]
BACKBONES = ["resnet50s", "efficientnet_lite0", "mobilenetv3_large", "convnext_tiny", "swin_tiny"]
Make = Callable[..., DictConfig]


@pytest.fixture(params=[1, packing._MIN_CHANNELS], ids=["winograd", "plain"])
def min_channels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(packing, "_MIN_CHANNELS", request.param)
    monkeypatch.setattr(packing, "_MAX_PRODUCTS", 100)
    return request.param


def _network(make_config: Make, *overrides: str) -> Segmenter:
    """Return a network whose norms have seen something."""
    cfg = make_config("data=shapes", "logger=none", "model.backbone.pretrained=false", *overrides)
    torch.manual_seed(0)
    model = build.module(cfg, build.datamodule(cfg).spec).model.eval()
    fill_statistics(model)
    return model


def _assert_same(model: Segmenter, *sizes: tuple[int, int]) -> Segmenter:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = optimize_for_inference(model, device=torch.device("cpu"))
    for size in sizes:
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model(x).logits
            for form in (torch.channels_last, torch.contiguous_format):
                actual = fast(x.contiguous(memory_format=form)).logits
                assert actual.is_contiguous()
                assert (actual - expected).abs().max() < 1e-4 * expected.std()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return fast


@pytest.mark.parametrize("head", HEADS)
def test_every_head(head: str, make_config: Make, min_channels: int) -> None:
    model = _network(make_config, *TINY, f"model/head={head}")
    fast = _assert_same(model, (64, 96), (65, 97))
    packed = [module for module in fast.modules() if isinstance(module, PackedConv)]
    assert packed
    assert any(conv._winograd_kernel is not None for conv in packed) == (min_channels == 1)
    assert not any(isinstance(module, nn.ReLU) for module in fast.neck.modules()), "they are inside of convolutions"


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_folded(head: str, make_config: Make) -> None:
    model, x = _network(make_config, *TINY, f"model/head={head}"), torch.randn(2, 3, 65, 97)
    folded = fold(model)
    with torch.no_grad():
        expected, output = model(x).logits, folded(x, extras=True)
    assert (output.logits - expected).abs().max() < 1e-4 * expected.std()
    assert output.extras == {}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()), "only the copy is changed"


@pytest.mark.parametrize("min_channels", [1], indirect=True, ids=["winograd"])
@pytest.mark.parametrize("neck", NECKS)
def test_every_neck(neck: str, make_config: Make, min_channels: int) -> None:
    _assert_same(_network(make_config, "model.backbone.name=test_resnet", f"model/neck={neck}"), (65, 97))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_families_of_backbones(backbone: str, make_config: Make) -> None:
    model = _network(make_config, f"model/backbone={backbone}", "model.neck.width=16", "model.head.channels=16")
    _assert_same(model, (65, 97))


@pytest.mark.slow
def test_dilated_depthwise_convolutions_keep_their_activations(make_config: Make) -> None:
    keys = ["model/backbone=efficientnet_lite0", "model/neck=dilated", "model.head.channels=16"]
    _assert_same(_network(make_config, *keys), (64, 96))


@pytest.mark.parametrize("dilation", [1, 2, 12])
@pytest.mark.parametrize("size", [(1, 1), (4, 8), (13, 6), (30, 31)])
@pytest.mark.parametrize("bias", [True, False])
def test_winograd_is_the_convolution(
    dilation: int, size: tuple[int, int], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(24, 40, 3, padding=dilation, dilation=dilation, bias=bias).double()
    assert winograd.can_convolve(conv)
    x = torch.randn(3, 24, *size, dtype=torch.float64)
    with torch.no_grad():
        kernel = winograd.transform_kernel(conv.weight)
        for tiles in (winograd._TILES, 7):  # all rows at once, and in bands
            monkeypatch.setattr(winograd, "_TILES", tiles)
            torch.testing.assert_close(winograd.convolve(x, kernel, conv.bias, dilation), conv(x))


def test_winograds_share_of_products() -> None:
    assert [round(winograd.share_of_products(64, 64, d), 2) for d in (1, 12, 36)] == [0.25, 0.56, 1.27]


def test_an_activation_stays_where_more_than_it_sees_the_convolution(make_config: Make) -> None:
    model = _network(make_config, *TINY)
    model.head.layers[0][2].inplace = False
    assert any(isinstance(module, nn.ReLU) for module in _assert_same(model, (64, 96)).modules())


def test_its_cost_is_counted_as_the_plain_ones(make_config: Make) -> None:
    model = _network(make_config, *TINY)
    size = (64, 96)
    plain, fast = (cost(network, size)["total"] for network in (model, _assert_same(model)))
    assert fast.gmacs == pytest.approx(plain.gmacs)
    assert fast.peak_mib <= 1.5 * plain.peak_mib
