"""Cross entropy by bands of rows against the plain formula: value, gradient, and what it keeps in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.losses.cross_entropy import CrossEntropy
from fastfcn_pl.ops import upsampled_cross_entropy as op
from fastfcn_pl.ops.upsampled_cross_entropy import upsampled_cross_entropy

CLASSES = 5
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0])
SIZES = [
    ((6, 7), (48, 56)),
    ((9, 7), (65, 50)),
    ((1, 1), (7, 5)),
    ((5, 4), (1, 1)),
    ((13, 11), (13, 11)),
    ((13, 5), (14, 5)),
    ((20, 16), (9, 5)),
]


def _plain(
    logits: Tensor, target: Tensor, weights: Tensor | None, label_smoothing: float, align_corners: bool
) -> Tensor:
    full = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=align_corners)
    weights = None if weights is None else weights.to(logits)
    options: Any = {"ignore_index": IGNORE, "reduction": "sum", "label_smoothing": label_smoothing}
    return F.cross_entropy(full, target.long(), weights, **options)


def _random(
    source: tuple[int, int], size: tuple[int, int], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    target = torch.randint(0, CLASSES, (3, *size), generator=rng, dtype=torch.uint8)
    target[torch.rand(3, *size, generator=rng) < 0.3] = IGNORE
    return 4 * torch.randn(3, CLASSES, *source, generator=rng, dtype=dtype), target


def _value_and_gradient(loss: Any, logits: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, *args)
    (gradient,) = torch.autograd.grad(3 * value, logits)
    return value.detach(), gradient


@pytest.fixture(params=[1, 3, 10**6], ids=lambda rows: f"bands of {rows}")
def _band(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of so many rows of 50 pixels."""
    monkeypatch.setitem(op._BAND, "cpu", request.param * 50 * CLASSES)


@pytest.mark.usefixtures("_band")
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("source", "size"), SIZES)
def test_value_and_gradient_are_the_plain_formulas(
    source: tuple[int, int],
    size: tuple[int, int],
    label_smoothing: float,
    weights: Tensor | None,
    align_corners: bool,
) -> None:
    options = weights, label_smoothing, align_corners
    logits, target = _random(source, size)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        expected = _value_and_gradient(_plain, logits.to(dtype), target, *options)
        actual = _value_and_gradient(upsampled_cross_entropy, logits.to(dtype), target, *options)
        assert actual[0].dtype == actual[1].dtype == dtype
        for one, other in zip(actual, expected, strict=True):
            assert (one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)


@pytest.mark.slow
@pytest.mark.parametrize("align_corners", [True, False])
def test_of_150_classes_at_the_size_of_the_paper(align_corners: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(1, 150, 60, 60, generator=rng)
    target = torch.randint(0, 150, (1, 480, 480), generator=rng)
    target[torch.rand(1, 480, 480, generator=rng) < 0.1] = IGNORE
    actual = _value_and_gradient(upsampled_cross_entropy, logits, target, None, 0.0, align_corners)
    expected = _value_and_gradient(_plain, logits, target, None, 0.0, align_corners)
    for one, other in zip(actual, expected, strict=True):
        assert (one - other).abs().max() < 1e-6 * other.abs().max()


@pytest.mark.slow
@pytest.mark.usefixtures("_band")
@pytest.mark.parametrize("align_corners", [True, False])
def test_gradient_is_that_of_the_value(align_corners: bool) -> None:
    logits, target = _random((3, 4), (13, 10), torch.float64)
    loss = lambda x: upsampled_cross_entropy(x, target, WEIGHTS, 0.1, align_corners)  # noqa: E731
    assert torch.autograd.gradcheck(loss, logits[:, :CLASSES].requires_grad_())


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_gradient_of_second_order(align_corners: bool, weights: Tensor | None, label_smoothing: float) -> None:
    logits, target = _random((3, 4), (9, 7))
    actual = []
    for loss in (upsampled_cross_entropy, _plain):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, target, weights, label_smoothing, align_corners)
        (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
        actual.append(torch.autograd.grad(gradient.square().sum(), leaf)[0])
    torch.testing.assert_close(*actual, rtol=1e-5, atol=1e-5)


def _masked(case: str, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return logits of which some are not finite, and their target."""
    logits, target = _random((6, 7), size)
    target[:, -2 * size[0] // 6 :] = IGNORE
    if case in ("nan", "-inf"):
        logits[:, 1, -1] = float(case)
    elif case == "class":
        logits[:, 1], target[target == 1] = -torch.inf, IGNORE
    elif case == "labelled":
        logits[0, :, 0, 0] = torch.nan
    elif case == "true class":
        logits[:, 1] = -torch.inf
    return logits, target


@pytest.mark.parametrize("size", [(48, 56), (6, 7), (24, 7)])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("case", ["nan", "-inf", "class", "labelled", "true class"])
def test_logits_that_are_not_finite_count_as_in_torch(case: str, align_corners: bool, size: tuple[int, int]) -> None:
    logits, target = _masked(case, size)
    actual = upsampled_cross_entropy(logits, target, None, 0.0, align_corners)
    expected = _plain(logits, target, None, 0.0, align_corners)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    logits, target = _random((4, 4), (17, 17))
    actual = _value_and_gradient(upsampled_cross_entropy, 1e3 * logits, target, None, 0.0, True)
    expected = _value_and_gradient(_plain, 1e3 * logits, target, None, 0.0, True)
    assert all(x.isfinite().all() for x in actual)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)


class _Largest(TorchDispatchMode):
    """Knows the number of elements of the largest tensor that was made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(x.numel() for x in tree_leaves(out) if isinstance(x, Tensor))])
        return out


@pytest.mark.slow
def test_scores_at_the_labels_size_are_never_there() -> None:
    logits, target = torch.randn(2, 150, 30, 30), torch.randint(0, 150, (2, 240, 240))
    with _Largest() as largest:
        _value_and_gradient(upsampled_cross_entropy, logits, target, None, 0.1, True)
    assert largest.elements <= op._BAND["cpu"] < 150 * 2 * 240 * 240 / 10
    with _Largest() as largest:
        _value_and_gradient(_plain, logits, target, None, 0.1, True)
    assert largest.elements == 150 * 2 * 240 * 240


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_autocast_and_half_precision_change_nothing(label_smoothing: float) -> None:
    logits, target = _random((6, 7), (48, 56))
    loss = CrossEntropy(class_weights=WEIGHTS.tolist(), label_smoothing=label_smoothing)
    half = logits.bfloat16()
    expected = _value_and_gradient(loss, half.float(), target, True)
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = _value_and_gradient(loss, half, target, True)
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(value, expected[0], rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected[1].bfloat16(), rtol=0, atol=0)


def test_memory_format_and_gradients_that_nobody_wants() -> None:
    logits, target = _random((6, 7), (48, 56))
    expected, gradient = _value_and_gradient(upsampled_cross_entropy, logits, target, None, 0.0, True)
    other = logits.to(memory_format=torch.channels_last)
    actual = _value_and_gradient(upsampled_cross_entropy, other, target, None, 0.0, True)
    torch.testing.assert_close(actual, (expected, gradient), rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(upsampled_cross_entropy(logits, target, None, 0.0, True), expected)
    assert not upsampled_cross_entropy(logits, target, None, 0.0, True).requires_grad


def test_gradient_by_torch_func() -> None:
    logits, target = _random((6, 7), (48, 56))
    options = target, None, 0.1, True
    actual = 3 * torch.func.grad(lambda x: upsampled_cross_entropy(x, *options))(logits)
    torch.testing.assert_close(actual, _value_and_gradient(_plain, logits, *options)[1], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_compiled() -> None:
    logits, target = _random((6, 7), (48, 56))
    options = target, WEIGHTS, 0.1, True
    expected = _value_and_gradient(upsampled_cross_entropy, logits, *options)
    actual = _value_and_gradient(torch.compile(upsampled_cross_entropy), logits, *options)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
