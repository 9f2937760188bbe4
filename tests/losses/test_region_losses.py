"""Losses other than cross entropy against naive references, with ignored pixels; their gradients."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from fastfcn_pl.core.types import IGNORE, ModelOutput, UserError
from fastfcn_pl.losses.boundary import Boundary
from fastfcn_pl.losses.cross_entropy import CrossEntropy
from fastfcn_pl.losses.dice import Dice
from fastfcn_pl.losses.focal import Focal
from fastfcn_pl.losses.lovasz import LovaszSoftmax
from fastfcn_pl.losses.ohem import OHEM
from fastfcn_pl.losses.se import SELoss
from fastfcn_pl.losses.tversky import Tversky
from fastfcn_pl.losses.weighted_sum import Term, WeightedSum

CLASSES = 4
LOSSES = {
    "cross entropy": CrossEntropy(class_weights=None, label_smoothing=0.1),
    "weighted": CrossEntropy(class_weights=[0.5, 1.0, 2.0, 3.0], label_smoothing=0.0),
    "ohem": OHEM(threshold=0.7, min_kept=5),
    "dice": Dice(),
    "lovasz": LovaszSoftmax(),
    "focal": Focal(gamma=2.0, class_weights=[0.5, 1.0, 2.0, 3.0]),
    "tversky": Tversky(alpha=0.3, beta=0.7, exponent=0.75),
    "boundary": Boundary(),
}


def _random(seed: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, CLASSES, 4, 5, generator=rng, dtype=dtype)
    target = torch.randint(0, CLASSES - seed % 2, (2, 4, 5), generator=rng, dtype=torch.uint8)
    target[torch.rand(2, 4, 5, generator=rng) < 0.3] = IGNORE
    return logits, target


def _pixels(logits: torch.Tensor, target: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """Return probabilities and label of every labelled pixel."""
    where = (target != IGNORE).nonzero().tolist()
    return [(logits[b, :, y, x].softmax(0), int(target[b, y, x])) for b, y, x in where]


@pytest.mark.parametrize("seed", range(8))
def test_label_smoothing_and_class_weights(seed: int) -> None:
    logits, target = _random(seed)
    pixels = _pixels(logits, target)
    smooth = torch.stack([-0.9 * p[c].log() - 0.1 * p.log().mean() for p, c in pixels]).mean()
    torch.testing.assert_close(LOSSES["cross entropy"](logits, target, True), smooth)
    weights = [0.5, 1.0, 2.0, 3.0]
    weighted = sum(-weights[c] * p[c].log() for p, c in pixels) / sum(weights[c] for _, c in pixels)
    torch.testing.assert_close(LOSSES["weighted"](logits, target, True), weighted)


@pytest.mark.parametrize("seed", range(8))
def test_dice_is_v_nets(seed: int) -> None:
    logits, target = _random(seed)
    pixels = _pixels(logits, target)
    losses = []
    for c in {label for _, label in pixels}:
        overlap = sum(p[c] for p, label in pixels if label == c)
        size = sum(p[c] ** 2 for p, _ in pixels) + sum(label == c for _, label in pixels)
        losses.append(1 - 2 * overlap / size)
    torch.testing.assert_close(Dice()(logits, target, True), torch.stack(losses).mean())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal(seed: int, gamma: float) -> None:
    logits, target = _random(seed)
    weights, pixels = [0.5, 1.0, 2.0, 3.0], _pixels(logits, target)
    expected = torch.stack([-weights[c] * (1 - p[c]) ** gamma * p[c].log() for p, c in pixels]).mean()
    torch.testing.assert_close(Focal(gamma=gamma, class_weights=weights)(logits, target, True), expected)


def test_focal_with_gamma_of_zero_is_cross_entropy() -> None:
    plain = CrossEntropy(class_weights=None, label_smoothing=0.0)
    focal = Focal(gamma=0.0, class_weights=None)
    torch.testing.assert_close(focal(*_random(0), True), plain(*_random(0), True))


def test_focal_of_a_certain_pixel_has_a_finite_gradient() -> None:
    logits = torch.tensor([200.0, -200.0])[None, :, None, None].requires_grad_()
    Focal(gamma=0.5, class_weights=None)(logits, torch.zeros(1, 1, 1, dtype=torch.uint8), True).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("alpha", "beta", "exponent"), [(0.5, 0.5, 1.0), (1.0, 1.0, 1.0), (0.3, 0.7, 0.75)])
def test_tversky(seed: int, alpha: float, beta: float, exponent: float) -> None:
    logits, target = _random(seed)
    pixels, losses = _pixels(logits, target), []
    for c in {label for _, label in pixels}:
        true = sum(p[c] for p, label in pixels if label == c)
        false_positive = sum(p[c] for p, label in pixels if label != c)
        false_negative = sum(1 - p[c] for p, label in pixels if label == c)
        losses.append((1 - true / (true + alpha * false_positive + beta * false_negative)) ** exponent)
    loss = Tversky(alpha=alpha, beta=beta, exponent=exponent)
    torch.testing.assert_close(loss(logits, target, True), torch.stack(losses).mean())


def test_tversky_of_a_class_that_is_absent_and_impossible_has_a_finite_gradient() -> None:
    logits = torch.tensor([200.0, -200.0])[None, :, None, None].expand(1, 2, 2, 2).clone().requires_grad_()
    Tversky(alpha=0.3, beta=0.7, exponent=1.0)(logits, torch.zeros(1, 2, 2, dtype=torch.uint8), True).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_tversky_with_halves_is_dice_without_squares() -> None:
    logits, target = _random(0)
    pixels, losses = _pixels(logits, target), []
    for c in {label for _, label in pixels}:
        size = sum(p[c] for p, _ in pixels) + sum(label == c for _, label in pixels)
        losses.append(1 - 2 * sum(p[c] for p, label in pixels if label == c) / size)
    loss = Tversky(alpha=0.5, beta=0.5, exponent=1.0)
    torch.testing.assert_close(loss(logits, target, True), torch.stack(losses).mean())


@pytest.mark.parametrize("seed", range(8))
def test_lovasz(seed: int) -> None:
    """The Lovasz extension by its definition: errors times the growth of the Jaccard loss, largest error first."""
    logits, target = _random(seed)
    pixels = _pixels(logits, target)
    losses = []
    for c in {label for _, label in pixels}:
        total = sum(label == c for _, label in pixels)
        errors = sorted(((1 - p[c] if y == c else p[c], y == c) for p, y in pixels), key=lambda e: -e[0])
        jaccard = [torch.tensor(0.0)]
        for k in range(1, len(errors) + 1):
            wrong_true = sum(is_c for _, is_c in errors[:k])
            wrong_false = k - wrong_true
            jaccard.append(torch.tensor(1 - (total - wrong_true) / (total + wrong_false)))
        losses.append(sum(e * (b - a) for (e, _), (a, b) in zip(errors, pairwise(jaccard), strict=True)))
    torch.testing.assert_close(LovaszSoftmax()(logits, target, True), torch.stack(losses).mean())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("threshold", "min_kept"), [(0.7, 2), (0.05, 4), (0.7, 10**6)])
def test_ohem_keeps_the_pixels_that_mmsegmentation_does(seed: int, threshold: float, min_kept: int) -> None:
    logits, target = _random(seed)
    probabilities = sorted(p[c] for p, c in _pixels(logits, target))
    limit = max(probabilities[min(2 * min_kept, len(probabilities) - 1)], threshold)
    expected = torch.stack([-p.log() for p in probabilities if p < limit]).mean()
    torch.testing.assert_close(OHEM(threshold=threshold, min_kept=min_kept)(logits, target, True), expected)


@pytest.mark.parametrize(
    ("probabilities", "min_kept", "kept"),
    [
        ([0.75, 0.75, 0.75, 0.9], 1, 0),  # the limit is 0.75, and ties with it are left out
        ([0.5, 0.75, 0.75, 0.9], 2, 1),
        ([0.5, 0.6, 0.75, 0.9], 2, 2),
        ([0.8, 0.9], 10, 1),  # fewer pixels than min_kept: the easiest is the limit
        ([0.25, 0.5], 10, 2),  # all are below the threshold
        ([], 10, 0),
    ],
)
def test_pixels_that_equal_the_limit_are_not_kept(probabilities: list[float], min_kept: int, kept: int) -> None:
    share = torch.tensor(probabilities, dtype=torch.float64)
    logits = torch.stack([share.log(), (1 - share).log()])[None, :, None]  # (1, 2, 1, pixels)
    logits = torch.cat([logits, torch.zeros(1, 2, 1, 1)], dim=3)
    target = torch.tensor([[[0] * len(probabilities) + [IGNORE]]], dtype=torch.uint8)
    expected = -share.sort().values[:kept].log().mean() if kept else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(OHEM(threshold=0.7, min_kept=min_kept)(logits, target, True), expected)


def test_dice_does_not_see_what_lies_under_ignored_pixels() -> None:
    logits, target = _random(0)
    expected = Dice()(logits, target, True)
    logits.movedim(1, -1)[target == IGNORE] = torch.nan
    torch.testing.assert_close(Dice()(logits, target, True), expected)


@pytest.mark.parametrize("seed", range(4))
def test_se_loss(seed: int) -> None:
    logits, target = torch.randn(2, CLASSES), _random(seed)[1]
    expected = []
    for b in range(2):
        occurs = torch.tensor([float((target[b] == c).any()) for c in range(CLASSES)])
        expected.append(nn.functional.binary_cross_entropy(logits[b].sigmoid(), occurs))
    torch.testing.assert_close(SELoss()(logits, target, True), torch.stack(expected).mean())
    target[0] = IGNORE  # says nothing about its classes
    torch.testing.assert_close(SELoss()(logits, target, True), expected[1])


@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name: str) -> None:
    logits, target = _random(3, torch.float64)
    loss = LOSSES[name]
    double = CrossEntropy(class_weights=None, label_smoothing=0.1) if name == "cross entropy" else loss
    if name == "weighted":
        double = CrossEntropy(class_weights=[0.5, 1.0, 2.0, 3.0], label_smoothing=0.0).double()
    assert torch.autograd.gradcheck(lambda x: double(x, target, True), logits.requires_grad_())


def test_gradient_of_se_loss() -> None:
    logits = torch.randn(2, CLASSES, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: SELoss()(x, _random(1)[1], True), logits)


@pytest.mark.parametrize("name", [*LOSSES, "se"])
def test_an_all_ignored_crop_gives_zero_with_a_gradient_of_zero(name: str) -> None:
    shape = (2, CLASSES) if name == "se" else (2, CLASSES, 4, 5)
    logits = torch.randn(*shape, requires_grad=True)
    loss = (SELoss() if name == "se" else LOSSES[name])(logits, torch.full((2, 4, 5), IGNORE, dtype=torch.uint8), True)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_nonsense_is_refused() -> None:
    with pytest.raises(UserError, match="label_smoothing=1"):
        CrossEntropy(class_weights=None, label_smoothing=1.0)
    with pytest.raises(UserError, match="gamma=-1"):
        Focal(gamma=-1, class_weights=None)
    with pytest.raises(UserError, match="alpha=0, beta=0"):
        Tversky(alpha=0, beta=0, exponent=1)
    with pytest.raises(UserError, match="a beta above 0"):
        Tversky(alpha=1, beta=0, exponent=1)
    with pytest.raises(UserError, match="exponent=0"):
        Tversky(alpha=1, beta=1, exponent=0)
    with pytest.raises(UserError, match="class_weights has 2 numbers for 4 classes"):
        Focal(gamma=2.0, class_weights=[1.0, 2.0])(*_random(0), True)
    with pytest.raises(UserError, match="class_weights has 2 numbers for 4 classes"):
        CrossEntropy(class_weights=[1.0, 2.0], label_smoothing=0.0)(*_random(0), True)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_in_float32_under_autocast(name: str) -> None:
    """Matrix products, as in Lovasz's, would be in bfloat16."""
    logits, target = _random(0)
    loss = WeightedSum(("logits",), terms={name: Term(output="logits", weight=1.0, loss=LOSSES[name])})
    values = []
    for enabled in (False, True):
        x = logits.bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value, _ = loss(ModelOutput(x, {}), target, True)
        value.backward()
        values.append((value, x.grad))
    assert values[1][0].dtype == torch.float32
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=0)
