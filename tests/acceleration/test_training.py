"""Memory formats in training: which one is chosen, and that gradients are right in it."""

from __future__ import annotations

import copy
import ctypes.util
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastfcn_pl.acceleration.depthwise_conv import DepthwiseConv
from fastfcn_pl.acceleration.training import is_wrong_in_channels_last, optimize_for_training
from fastfcn_pl.config import build
from fastfcn_pl.models.segmenter import Segmenter
from tests.support.acceleration_parts import Blocks, blocks, network

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # weights stay where they are: no GPU is needed


def _network(backbone: str) -> Segmenter:
    torch.manual_seed(0)
    small = ["model/head=fcn", "model.neck.width=8", "model.head.channels=8", "model.aux_head.channels=8"]
    words = ["model=fastfcn", *small, f"model.backbone.name={backbone}", "model.backbone.pretrained=false"]
    return build.model(build.compose(words), 5).eval()  # batch norms of few pixels would magnify what rounding leaves


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_gradients_are_those_of_the_default_format(backbone: str) -> None:
    plain, x = _network(backbone), torch.randn(2, 3, 96, 128)
    optimized = copy.deepcopy(plain)
    form = optimize_for_training(optimized, device=CPU, precision="32-true", channels_last=True)
    outputs = [plain(x, extras=True), optimized(x.contiguous(memory_format=form), extras=True)]
    for name, expected in outputs[0].named().items():
        torch.testing.assert_close(outputs[1].named()[name], expected, atol=1e-4, rtol=1e-4)
    for output in outputs:
        sum(value.square().mean() for value in output.named().values()).backward()
    for (name, expected), actual in zip(plain.named_parameters(), optimized.parameters(), strict=True):
        if expected.grad is not None:
            error = (actual.grad - expected.grad).norm() / expected.grad.norm().clamp(min=1e-6)
            assert error < 1e-3, name


@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("dilation", [1, 2, 4, 8])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_depthwise_gradients_in_bfloat16_are_float32s(
    dilation: int, memory_format: torch.memory_format, accelerate: bool
) -> None:
    """torch 2.14 computes wrong ones of channels_last, without a warning: they are off by 1.3 to 1e35 times."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(48, 48, 3, padding=dilation, dilation=dilation, groups=48))
    x = torch.randn(2, 48, 60, 60)
    net(x).square().mean().backward()
    expected = net[0].weight.grad.clone()

    net.zero_grad()
    net.to(memory_format=memory_format)  # as a network is that was built to score
    options = {"precision": "bf16-mixed", "channels_last": True, "accelerate": accelerate}
    for _ in range(2):  # a second call changes nothing
        assert optimize_for_training(net, device=CPU, **options) is torch.contiguous_format
    assert len(net[0]._forward_pre_hooks) == 1
    with torch.autocast("cpu", torch.bfloat16):  # after a Swin, maps are in channels_last whatever images are in
        net(x.to(memory_format=memory_format)).float().square().mean().backward()
    assert (net[0].weight.grad - expected).norm() / expected.norm() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "device", "precision", "channels_last", "expected"),
    [
        ("test_resnet", CPU, "32-true", True, torch.channels_last),
        ("test_resnet", CPU, "32-true", False, torch.contiguous_format),
        ("test_resnet", CPU, "bf16-mixed", True, torch.contiguous_format),  # of JPU's depthwise convolutions
        ("test_resnet", GPU, "bf16-mixed", True, torch.channels_last),
        ("mobileone_s0", CPU, "32-true", True, torch.contiguous_format),  # corrupts memory
        ("mobileone_s0", GPU, "32-true", True, torch.channels_last),
    ],
)
def test_the_format(
    backbone: str, device: torch.device, precision: str, channels_last: bool, expected: torch.memory_format
) -> None:
    network, seen = _network(backbone), set()
    form = optimize_for_training(network, device=device, precision=precision, channels_last=channels_last)
    assert form is expected

    def watch(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if min(inputs[0].shape[1:]) > 1:  # else both are the same
            seen.add(inputs[0].is_contiguous())

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(watch)
    network(torch.randn(2, 3, 96, 128).contiguous(memory_format=form))
    assert seen == {form is torch.contiguous_format}, "it is that of every convolution"


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["mobileone_s0", "fastvit_t8", "test_byobnet"])
def test_convolutions_that_corrupt_memory_are_found(backbone: str) -> None:
    network = _network(backbone)
    actual = any(is_wrong_in_channels_last(module, half=False) for module in network.modules())
    assert actual == (backbone != "test_byobnet")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "precision", "accelerate", "expected"),
    [
        (CPU, "32-true", True, [2, 4, 8]),
        (CPU, "bf16-mixed", True, []),
        (GPU, "bf16-mixed", True, [2, 4, 8]),
        (GPU, "32-true", False, []),
    ],
)
def test_dilated_depthwise_convolutions_are_ours_in_channels_last(
    device: torch.device, precision: str, accelerate: bool, expected: list[int]
) -> None:
    network = _network("test_resnet")
    names = list(network.state_dict())
    options = {"precision": precision, "channels_last": True, "accelerate": accelerate}
    optimize_for_training(network, device=device, **options)
    assert [module.dilation[0] for module in network.modules() if type(module) is DepthwiseConv] == expected
    assert list(network.state_dict()) == names


@pytest.mark.slow
@given(
    head=st.lists(blocks, min_size=1, max_size=3),
    channels_last=st.booleans(),
    device=st.sampled_from([CPU, GPU]),
)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_gradients_of_generated_heads(head: Blocks, channels_last: bool, device: torch.device) -> None:
    _compare_gradients(head, channels_last, device)


@pytest.mark.exhaustive
@given(head=st.lists(blocks, min_size=1, max_size=4), channels_last=st.booleans(), device=st.sampled_from([CPU, GPU]))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_gradients_of_many_generated_heads(head: Blocks, channels_last: bool, device: torch.device) -> None:
    _compare_gradients(head, channels_last, device)


def _compare_gradients(head: Blocks, channels_last: bool, device: torch.device) -> None:
    plain, optimized = network(head).train(), network(head).train()
    for model in (plain, optimized):
        model.backbone.stem.requires_grad_(False)
    form = optimize_for_training(optimized, device=device, precision="32-true", channels_last=channels_last)
    results: list[dict[str, Tensor | None]] = []
    for model, image_form in ((plain, torch.contiguous_format), (optimized, form)):
        torch.manual_seed(0)
        x = torch.randn(2, 3, 48, 64).contiguous(memory_format=image_form)
        logits = model(x).logits
        logits.square().mean().backward()
        results.append({"logits": logits, **{name: p.grad for name, p in model.named_parameters()}})
    assert results[0].keys() == results[1].keys()
    largest = max(float(value.detach().norm()) for value in results[0].values() if value is not None)
    for name, expected in results[0].items():
        gradient = results[1][name]
        assert (gradient is None) == (expected is None), name
        if expected is not None and gradient is not None:
            assert (gradient - expected).norm() <= 1e-3 * expected.norm() + 1e-5 * largest, name


def test_modules_hooks_and_attributes_stay() -> None:
    model, calls = network([("chain", "dilated depthwise", "batch", "relu in place")]), []
    conv = model.head.blocks[0].conv
    conv.note = "mine"
    optimize_for_training(model, device=GPU, precision="32-true", channels_last=True)
    assert type(conv) is DepthwiseConv
    conv.register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(2, 3, 64, 96))
    assert model.head.blocks[0].conv is conv
    assert (conv.note, len(calls)) == ("mine", 1)


def test_copies_and_functional_calls_are_as_in_torch() -> None:
    blocks = [("chain", "dilated depthwise", "batch", "relu in place")]
    plain, optimized, x = network(blocks), network(blocks), torch.randn(1, 3, 48, 64)
    optimize_for_training(optimized, device=GPU, precision="32-true", channels_last=True)
    copied = copy.deepcopy(optimized)
    with torch.no_grad():
        copied.head.blocks[0].conv.weight.zero_()
    gradients = []
    for model in (plain, optimized):
        weights = dict(model.named_parameters())
        loss = lambda values, model=model: torch.func.functional_call(model, values, x).logits.square().mean()  # noqa: E731
        gradients.append(torch.func.grad(loss)(weights))
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, atol=1e-5, rtol=1e-3)


_CHECKED = "libc_malloc_debug.so.0"
_STEP = """
import torch
from torch import nn
from fastfcn_pl.acceleration.training import optimize_for_training
from fastfcn_pl.models.backbones.timm import TimmBackbone
net = TimmBackbone(name="mobileone_s0", output_stride=32, pretrained=False)
form = optimize_for_training(net, device=torch.device("cpu"), precision="32-true", channels_last=True)
for size in ((97, 129), (64, 64)):
    sum(level.sum() for level in net(torch.randn(2, 3, *size).contiguous(memory_format=form))).backward()
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(ctypes.util.find_library("c_malloc_debug") is None, reason=f"glibc's {_CHECKED} is not here")
def test_a_training_step_keeps_the_heap_whole() -> None:
    """glibc's checks end the process with SIGABRT if something was written outside of its memory."""
    env = {**os.environ, "MALLOC_CHECK_": "3", "LD_PRELOAD": _CHECKED}
    done = subprocess.run([sys.executable, "-c", _STEP], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
