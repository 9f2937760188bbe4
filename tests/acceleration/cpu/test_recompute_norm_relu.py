"""Layers that keep less for their gradient give what torch's give, and keep less."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu.cpu_convs import PointwiseConv
from fastfcn_pl.acceleration.cpu.prepacked_conv import packed
from fastfcn_pl.acceleration.cpu.recompute_norm_relu import LeanMaxPool2d, LeanReLU, LeanSequential, pool_leanly
from fastfcn_pl.acceleration.cpu.resnet_bottleneck import LeanBottleneck, make_lean
from fastfcn_pl.acceleration.fold import deployed
from fastfcn_pl.config import build
from fastfcn_pl.models.layers import ConvNormAct, SeparableConv

FORMATS = pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
POOLS = pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.MaxPool2d(2),
        nn.MaxPool2d((3, 2), stride=(1, 2), padding=(1, 0)),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.MaxPool2d(2, stride=1, dilation=3),
    ],
    ids=repr,
)


def _compare(layer: nn.Module, lean: nn.Module, x: Tensor) -> None:
    """Hold both to the same outputs, gradients and memory formats, bit by bit."""
    found = []
    for it in (layer, lean):
        leaf = x.clone().requires_grad_()
        out = it(leaf * 1)
        weights = torch.arange(out.numel(), dtype=x.dtype).sin().view(out.shape)
        (gradient,) = torch.autograd.grad(out, leaf, weights)
        found += [(out, gradient)]
    for expected, got in zip(*found, strict=True):
        assert torch.equal(got, expected)
        assert got.stride() == expected.stride()
    assert torch.equal(lean(x.clone()), found[0][0])
    assert torch.equal(lean.eval()(x.clone().requires_grad_() * 1), found[0][0])


@FORMATS
@DTYPES
@POOLS
def test_pools_are_torchs(pool: nn.MaxPool2d, dtype: torch.dtype, form: torch.memory_format) -> None:
    x = torch.randn(2, 5, 13, 17, generator=torch.Generator().manual_seed(0)).relu()  # zeros: there are ties
    _compare(pool, LeanMaxPool2d.like(pool), x.to(dtype).contiguous(memory_format=form))


@FORMATS
@DTYPES
def test_the_activation_is_torchs(dtype: torch.dtype, form: torch.memory_format) -> None:
    x = torch.randn(2, 5, 13, 17, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[0, 0, 0] = 0
    _compare(nn.ReLU(inplace=True), LeanReLU(), x.contiguous(memory_format=form))


def test_the_activation_passes_on_what_is_no_number() -> None:
    x, gradients = torch.tensor([float("nan"), float("inf"), -1.0]), torch.tensor([1.0, 2.0, float("inf")])
    found = []
    for layer in (nn.ReLU(inplace=True), LeanReLU()):
        leaf = x.clone().requires_grad_()
        found += [(layer(leaf * 1), torch.autograd.grad(layer(leaf * 1), leaf, gradients)[0])]
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_indices_that_are_asked_for_are_torchs() -> None:
    pool, x = nn.MaxPool2d(2, return_indices=True), torch.randn(1, 2, 4, 6, requires_grad=True)
    for expected, got in zip(pool(x), LeanMaxPool2d.like(pool)(x), strict=True):
        assert torch.equal(got, expected)


def _kept(work: Callable[[], Tensor]) -> int:
    """Return the bytes that are kept between `work` and its backward pass, its parameters and inputs not counted."""
    sizes: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        if not tensor.is_leaf or not tensor.is_floating_point():
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        work().sum().backward()
    return sum(sizes.values())


def test_a_stem_keeps_a_third() -> None:
    x = torch.randn(1, 4, 32, 32, requires_grad=True)
    stem = nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
    number = 4 * 32 * 32
    assert _kept(lambda: stem(x * 1)) == number * (4 + 8 // 4)
    pool_leanly(stem)
    assert _kept(lambda: stem(x * 1)) == number * (1 + 4 // 4)


@pytest.mark.parametrize("make", [ConvNormAct, lambda i, o: SeparableConv(i, o, 1)], ids=["ConvNormAct", "branch"])
def test_layers_of_necks_and_heads_keep_a_byte_for_each_number(make: Callable[[int, int], nn.Sequential]) -> None:
    x, layer = torch.randn(2, 8, 16, 16), make(8, 64)
    number = 2 * 64 * 16 * 16
    lean = _kept(lambda: layer(x))
    layer[-1] = nn.ReLU(inplace=True)
    assert _kept(lambda: layer(x)) - lean == 3 * number


def test_only_pools_behind_activations_are_changed() -> None:
    net = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.MaxPool2d(2))
    before = [type(child) for child in net]
    pool_leanly(net)
    assert [type(child) for child in net] == before


def test_a_resnet_pools_leanly_and_is_deployed_with_torchs_own_activations() -> None:
    words = ["model=fastfcn", "model.backbone.name=resnet26d", "model.backbone.pretrained=false"]
    model, x = build.model(build.compose(words), 3).eval(), torch.randn(1, 3, 64, 96)
    kinds = {type(module) for module in model.modules()}
    assert {LeanReLU, LeanMaxPool2d, LeanSequential, LeanBottleneck} <= kinds
    assert not any(isinstance(module, LeanReLU) for module in deployed(model).modules())
    for network in (deployed(model), packed(model)):
        torch.testing.assert_close(network(x).logits, model(x).logits, rtol=1e-4, atol=1e-4)


def _row(conv: nn.Conv2d) -> nn.Sequential:
    norm = nn.BatchNorm2d(8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), norm, nn.ReLU(inplace=True), conv)


def _learn(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Return output, gradients and statistics of two steps."""
    found = []
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        out = net(leaf * 1)
        weights = torch.arange(out.numel(), dtype=x.dtype).sin().view(out.shape)
        found += [out, *torch.autograd.grad(out, [leaf, *net.parameters()], weights)]
    return [*found, *net.buffers()]


@FORMATS
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 12, 1, bias=False),
        nn.Conv2d(8, 12, 3, padding=1, bias=False),
        nn.Conv2d(8, 12, 3, stride=2, padding=2, dilation=2, bias=False),
        nn.Conv2d(8, 12, 1, stride=2, bias=False),
        nn.Conv2d(8, 12, 3, groups=4, bias=False),
        PointwiseConv(8, 12, 1, bias=False),
    ],
    ids=repr,
)
def test_rows_of_norm_relu_convolution_are_torchs(conv: nn.Conv2d, form: torch.memory_format) -> None:
    torch.manual_seed(0)
    plain, x = _row(conv).double(), torch.randn(2, 3, 13, 17, dtype=torch.float64)
    lean = LeanSequential(*copy.deepcopy(plain))
    x = x.contiguous(memory_format=form)
    for expected, got in zip(_learn(plain, x), _learn(lean, x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(lean.eval()(x), plain.eval()(x))


def test_a_row_keeps_one_map() -> None:
    lean, x = LeanSequential(*_row(nn.Conv2d(8, 12, 1, bias=False))), torch.randn(2, 3, 18, 18)
    number = 2 * 8 * 16 * 16 * 4
    kept = _kept(lambda: lean(x))
    assert kept == number
    assert _kept(lambda: nn.Sequential(*lean)(x)) - kept == number


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row[1].eval(),
        lambda row: row[2].register_forward_hook(lambda *_: None),
        lambda row: row[3].register_forward_pre_hook(lambda *_: None),
        lambda row: row[3].requires_grad_(False),
        lambda row: setattr(row[1], "track_running_stats", False),
    ],
    ids=["eval", "hook on the activation", "hook on the convolution", "frozen", "no statistics"],
)
def test_rows_that_are_not_plain_are_run_as_they_are(change: Callable[[nn.Sequential], object]) -> None:
    torch.manual_seed(0)
    plain, x = _row(nn.Conv2d(8, 12, 1, bias=False)), torch.randn(2, 3, 13, 17)
    change(plain)
    lean = LeanSequential(*plain)
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert torch.equal(lean(x), plain(x))
    assert type(lean(x).grad_fn).__name__ == "ConvolutionBackward0"


def test_half_precision_is_torchs() -> None:
    lean, x = LeanSequential(*_row(nn.Conv2d(8, 12, 1, bias=False))), torch.randn(2, 3, 13, 17)
    with torch.autocast("cpu", torch.bfloat16):
        assert type(lean(x).grad_fn).__name__ == "ConvolutionBackward0"


@pytest.mark.parametrize(
    "options", [{}, {"output_stride": 8}, {"block_args": {"attn_layer": "se"}, "drop_path_rate": 0.5}]
)
def test_a_lean_resnet_is_timms(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = timm.create_model("resnet50d", features_only=True, **options).double()
    lean = copy.deepcopy(plain)
    make_lean(lean)
    assert list(lean.state_dict()) == list(plain.state_dict())
    kinds = Counter(type(module) for module in lean.modules())
    assert kinds[LeanBottleneck] == 16
    assert kinds[LeanSequential] == kinds[LeanMaxPool2d] == 1
    x, found = torch.randn(2, 3, 64, 96, dtype=torch.float64), []
    for net in (plain, lean):
        torch.manual_seed(1)
        levels = net(x)
        gradients = torch.autograd.grad(sum(level.square().mean() for level in levels), list(net.parameters()))
        found += [[*levels, *gradients, *net.buffers()]]
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


def test_blocks_with_something_in_between_are_left_alone() -> None:
    net = timm.create_model("resnetaa50", features_only=True)
    make_lean(net)
    kinds = Counter(type(module) for module in net.modules())
    assert kinds[Bottleneck] == 3
    assert kinds[LeanBottleneck] == 13
