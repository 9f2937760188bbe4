"""Memory formats in training: which there is where, and that it changes no number."""

from __future__ import annotations

import copy
import ctypes.util
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.training import corrupts_memory, lay_out
from fastfcn_pl.config import build
from fastfcn_pl.models.segmenter import Segmenter

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # weights stay where they are: no GPU is needed


def _network(backbone: str) -> Segmenter:
    torch.manual_seed(0)
    small = ["model/head=fcn", "model.neck.width=8", "model.head.channels=8", "model.aux_head.channels=8"]
    words = ["model=fastfcn", *small, f"model.backbone.name={backbone}", "model.backbone.pretrained=false"]
    return build.model(build.compose(words), 5).eval()  # batch norms of few pixels would magnify what rounding leaves


def _formats(network: nn.Module, x: Tensor) -> dict[tuple[bool, bool], set[bool]]:
    """Return whether convolutions see the default format, for those that are (depthwise, dense and spatial)."""
    seen: dict[tuple[bool, bool], set[bool]] = {}

    def watch(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        kind = conv.groups > 1, conv.groups == 1 and conv.kernel_size != (1, 1)
        if min(inputs[0].shape[1:]) > 1:  # else both are the same
            seen.setdefault(kind, set()).add(inputs[0].is_contiguous())

    hooks = [m.register_forward_hook(watch) for m in network.modules() if isinstance(m, nn.Conv2d)]
    network(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(
    "backbone",
    [
        *("test_resnet", "test_efficientnet", "test_convnext"),
        pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow),
    ],
)
def test_numbers_stay_in_whatever_format(backbone: str) -> None:
    plain, x = _network(backbone), torch.randn(2, 3, 96, 128)
    laid_out = copy.deepcopy(plain)
    form = lay_out(laid_out, True, CPU, half=False)
    outputs = [plain(x, extras=True), laid_out(x.contiguous(memory_format=form), extras=True)]
    for name, expected in outputs[0].named().items():
        torch.testing.assert_close(outputs[1].named()[name], expected, atol=1e-4, rtol=1e-4)
    for output in outputs:
        sum(value.square().mean() for value in output.named().values()).backward()
    for (name, expected), found in zip(plain.named_parameters(), laid_out.parameters(), strict=True):
        if expected.grad is not None:
            error = (found.grad - expected.grad).norm() / expected.grad.norm().clamp(min=1e-6)
            assert error < 1e-3, name


@pytest.mark.parametrize("backbone", ["test_resnet", "resnet18"])
def test_a_backbone_of_dense_convolutions_keeps_the_default(backbone: str) -> None:
    network = _network(backbone)
    assert lay_out(network, True, CPU, half=False) is torch.contiguous_format
    assert _formats(network, torch.randn(2, 3, 96, 128))[False, True] == {True}


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "test_convnext"])
def test_depthwise_convolutions_are_channels_last_and_dense_ones_are_not(backbone: str) -> None:
    network = _network(backbone)
    form = lay_out(network, True, CPU, half=False)
    assert form is torch.channels_last
    seen = _formats(network, torch.randn(2, 3, 96, 128).contiguous(memory_format=form))
    assert seen[True, False] == {False}
    assert seen[False, True] == {True}


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_half_precision_has_channels_last_throughout(device: torch.device) -> None:
    network = _network("test_resnet")
    form = lay_out(network, True, device, half=True)
    assert form is torch.channels_last
    seen = _formats(network, torch.randn(2, 3, 96, 128).contiguous(memory_format=form))
    assert set.union(*seen.values()) == {False}


@pytest.mark.parametrize(("channels_last", "half"), [(False, False), (True, True)])
def test_the_default_format_where_it_is_asked_for_or_alone_right(channels_last: bool, half: bool) -> None:
    network = _network("mobilenetv3_small_050")
    assert lay_out(network, channels_last, CPU, half) is torch.contiguous_format
    seen = _formats(network, torch.randn(2, 3, 96, 128))
    assert seen[False, True] == seen[True, False] == {True}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("backbone", ["mobileone_s0", "fastvit_t8", "test_byobnet"])
def test_convolutions_that_corrupt_memory_never_see_channels_last(backbone: str, half: bool) -> None:
    network = _network(backbone)
    strided = [m for m in network.modules() if corrupts_memory(m)]
    form = lay_out(network, True, CPU, half=half)
    assert bool(strided) == (backbone != "test_byobnet"), "the case tests nothing"
    assert form is torch.contiguous_format or not strided
    seen = []
    for conv in strided:
        conv.register_forward_pre_hook(lambda conv, inputs: seen.append(inputs[0].is_contiguous()))
    network(torch.randn(2, 3, 96, 128).contiguous(memory_format=form))
    assert all(seen)
    assert len(seen) == len(strided)


_CHECKED = "libc_malloc_debug.so.0"
_STEP = """
import torch
from fastfcn_pl.acceleration.training import corrupts_memory, lay_out
from tests.acceleration.test_training import CPU, _network
network = _network("mobileone_s0").train()
form = lay_out(network, True, CPU, half=False)
for size in ((97, 129), (64, 64)):
    x = torch.randn(2, 3, *size).contiguous(memory_format=form)
    network(x).logits.sum().backward()
"""


@pytest.mark.slow
@pytest.mark.skipif(ctypes.util.find_library("c_malloc_debug") is None, reason=f"glibc's {_CHECKED} is not here")
def test_a_training_step_keeps_the_heap_whole() -> None:
    """glibc's checks end the process with SIGABRT if something was written behind its memory."""
    env = {**os.environ, "MALLOC_CHECK_": "3", "LD_PRELOAD": _CHECKED}
    done = subprocess.run([sys.executable, "-c", _STEP], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
