"""Cross entropy by the kernels for GPUs against that by bands; without a GPU Triton interprets them."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.ops import triton_support
from fastfcn_pl.ops.upsampled_cross_entropy import upsampled_cross_entropy
from tests.ops.test_upsampled_cross_entropy import _masked, _plain

pytestmark = pytest.mark.slow
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = [((6, 7), (20, 25)), ((1, 1), (7, 5)), ((5, 4), (1, 1)), ((6, 5), (6, 5)), ((13, 5), (14, 5)), ((9, 8), (4, 3))]


@pytest.mark.parametrize(("source", "size"), SIZES)
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("classes", "smoothing", "weighted"), [(5, 0.0, False), (5, 0.1, True), (21, 0.2, False)])
def test_value_and_gradient(
    source: tuple[int, int],
    size: tuple[int, int],
    align_corners: bool,
    classes: int,
    smoothing: float,
    weighted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = torch.Generator().manual_seed(0)
    target = torch.randint(0, classes, (2, *size), generator=rng, dtype=torch.uint8)
    target[torch.rand(2, *size, generator=rng) < 0.3] = IGNORE
    x = 4 * torch.randn(2, classes, *source, generator=rng)
    weights = torch.linspace(0, 2, classes) if weighted else None
    results = []
    for ours in (True, False):
        monkeypatch.setattr(triton_support, "runs_on", lambda x, ours=ours: ours)
        device = DEVICE if ours else "cpu"
        logits = x.to(device).requires_grad_()
        value = upsampled_cross_entropy(logits, target.to(device), weights, smoothing, align_corners)
        (gradient,) = torch.autograd.grad(3 * value, logits)
        results.append([value.detach().cpu(), gradient.cpu()])
    for actual, expected in zip(*results, strict=True):
        assert (actual - expected).abs().max() <= 2e-6 * expected.abs().max()


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("case", ["nan", "-inf", "class", "labelled", "true class"])
def test_logits_that_are_not_finite_count_as_in_torch(
    case: str, align_corners: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, target = _masked(case, (24, 7))
    monkeypatch.setattr(triton_support, "runs_on", lambda x: True)
    actual = upsampled_cross_entropy(logits.to(DEVICE), target.to(DEVICE), None, 0.0, align_corners).cpu()
    expected = _plain(logits, target, None, 0.0, align_corners)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_nothing_is_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_support, "runs_on", lambda x: True)
    logits = torch.randn(1, 3, 2, 2, device=DEVICE, requires_grad=True)
    target = torch.full((1, 5, 5), IGNORE, dtype=torch.uint8, device=DEVICE)
    value = upsampled_cross_entropy(logits, target, None, 0.0, True)
    value.backward()
    assert value == 0
    assert not logits.grad.any()


def test_large_logits_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 3000
    target = torch.zeros(1, 9, 9, dtype=torch.uint8)
    values = []
    for ours in (True, False):
        monkeypatch.setattr(triton_support, "runs_on", lambda x, ours=ours: ours)
        device = DEVICE if ours else "cpu"
        values.append(upsampled_cross_entropy(logits.to(device), target.to(device), None, 0.0, True).cpu())
    torch.testing.assert_close(*values, rtol=1e-5, atol=0)


def test_a_label_of_no_class_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_support, "runs_on", lambda x: True)
    logits, target = torch.randn(1, 3, 2, 2, device=DEVICE), torch.zeros(1, 5, 5, dtype=torch.uint8, device=DEVICE)
    target[0, 2, 2] = 3
    assert upsampled_cross_entropy(logits, target, None, 0.0, True).isnan()


def test_without_a_gradient_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_support, "runs_on", lambda x: True)
    logits, target = torch.randn(1, 3, 2, 2, device=DEVICE), torch.zeros(1, 5, 5, dtype=torch.uint8, device=DEVICE)
    assert not upsampled_cross_entropy(logits, target, None, 0.0, True).requires_grad
