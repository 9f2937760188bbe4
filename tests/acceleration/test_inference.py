"""The network that predicts, in every precision, gives what the trained one does."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from fastfcn_pl.acceleration.cpu.prepacked_conv import PackedConv
from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.config import build
from fastfcn_pl.models.cost import cost
from fastfcn_pl.models.segmenter import Segmenter
from tests.conftest import TINY
from tests.fakes.network import fill_statistics

CPU, LOW = torch.device("cpu"), torch.bfloat16
Make = Callable[..., DictConfig]


@pytest.fixture
def model(make_config: Make) -> Segmenter:
    """Return a network whose norms have seen something."""
    cfg = make_config("data=shapes", "model/head=encnet", *TINY)
    torch.manual_seed(0)
    model = build.module(cfg, build.datamodule(cfg).spec).model.eval()
    fill_statistics(model)
    return model


@pytest.mark.slow
def test_bfloat16_labels_as_float32_does(model: Segmenter) -> None:
    x = torch.randn(1, 3, 64, 96)
    low = optimize_for_inference(model, device=CPU, dtype=LOW)
    with torch.no_grad():
        expected, actual = model(x).logits, low(x).logits
        with torch.autocast("cpu", LOW):
            around, plain = optimize_for_inference(model, device=CPU)(x).logits, model(x).logits
    assert actual.dtype == LOW
    assert torch.equal(actual, around)
    error = (plain.float() - expected).abs().max()  # that autocast makes
    assert (actual.float() - expected).abs().max() < 1.5 * error < 0.1 * expected.std()


@pytest.mark.slow
def test_weights_of_convolutions_and_products_are_cast_once(model: Segmenter) -> None:
    low = optimize_for_inference(model, device=CPU, dtype=LOW)
    cast = {name.rpartition(".")[0] for name, weight in low.named_parameters() if weight.dtype == LOW}
    assert cast == {name for name, module in low.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16")
def test_convolutions_in_bfloat16_are_packed(model: Segmenter) -> None:
    assert any(
        isinstance(module, PackedConv) for module in optimize_for_inference(model, device=CPU, dtype=LOW).modules()
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, LOW])
def test_a_copy_is_a_network_of_its_own(model: Segmenter, dtype: torch.dtype | None) -> None:
    fast, x = optimize_for_inference(model, device=CPU, dtype=dtype), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = fast(x).logits
        copied = copy.deepcopy(fast)
        for weight in copied.parameters():
            weight.zero_()
        assert copied(x).logits.abs().max() == 0
        assert torch.equal(fast(x).logits, before)
    assert cost(fast, (64, 96))["total"].gmacs == cost(model, (64, 96))["total"].gmacs
