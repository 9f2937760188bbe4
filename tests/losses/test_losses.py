"""Losses: ignored pixels do not count, terms are summed by their weights, and nonsense is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastfcn_pl.core.types import IGNORE, ModelOutput, UserError
from fastfcn_pl.losses import reduction
from fastfcn_pl.losses.cross_entropy import CrossEntropy
from fastfcn_pl.losses.weighted_sum import Term, WeightedSum

PLAIN = CrossEntropy(class_weights=None, label_smoothing=0.0)


def _naive(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of -log p over labelled pixels, one at a time."""
    values = [-logits[b, :, y, x].log_softmax(0)[target[b, y, x]] for b, y, x in (target != IGNORE).nonzero().tolist()]
    return torch.stack(values).mean()


def test_cross_entropy_is_the_mean_over_labelled_pixels() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 6)
    target = torch.randint(0, 4, (2, 5, 6), dtype=torch.uint8)
    target[torch.rand(2, 5, 6) < 0.3] = IGNORE
    torch.testing.assert_close(PLAIN(logits, target, True), _naive(logits, target.long()))


@pytest.mark.parametrize("align_corners", [True, False])
def test_cross_entropy_upsamples_to_the_label(align_corners: bool) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 4, 5), torch.randint(0, 3, (1, 13, 17), dtype=torch.uint8)
    full = nn.functional.interpolate(logits, (13, 17), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(PLAIN(logits, target, align_corners), _naive(full, target.long()))


def test_an_all_ignored_crop_gives_zero_with_a_gradient_of_zero() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = PLAIN(logits, torch.full((1, 4, 4), IGNORE, dtype=torch.uint8), True)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_the_mean_is_over_the_labelled_pixels_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank is computed in turn; summing the count over ranks adds that of the other one."""
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4), dtype=torch.uint8)
    target[0, 1:] = IGNORE  # one rank has 4 labelled pixels, the other 16
    expected, losses = PLAIN(logits, target, True), []
    monkeypatch.setattr(reduction.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(reduction.dist, "get_world_size", lambda: 2)
    for rank, other in ((0, 1), (1, 0)):
        others = (target[other] != IGNORE).sum()
        monkeypatch.setattr(reduction.dist, "all_reduce", lambda count, others=others: count.add_(others))
        losses.append(PLAIN(logits[rank : rank + 1], target[rank : rank + 1], True))
    torch.testing.assert_close(torch.stack(losses).mean(), expected)


def _terms(**weights: float) -> dict[str, Term]:
    outputs = {"main": "logits", "aux": "aux_logits", "se": "se_logits"}
    return {name: Term(output=outputs[name], weight=w, loss=PLAIN) for name, w in weights.items()}


def test_terms_are_weighted_and_named() -> None:
    torch.manual_seed(0)
    output = ModelOutput(torch.randn(1, 3, 4, 4), {"aux_logits": torch.randn(1, 3, 2, 2)})
    target = torch.randint(0, 3, (1, 4, 4), dtype=torch.uint8)
    total, named = WeightedSum(("logits", "aux_logits"), terms=_terms(main=1, aux=0.2))(output, target, True)
    assert set(named) == {"main", "aux"}
    torch.testing.assert_close(total, named["main"] + 0.2 * named["aux"])


def test_a_term_on_a_part_that_the_model_does_not_have_is_left_out() -> None:
    assert list(WeightedSum(("logits",), terms=_terms(main=1, aux=0.2, se=0.2)).terms) == ["main"]


def test_a_weight_of_zero_on_a_part_that_exists_is_refused() -> None:
    with pytest.raises(UserError, match=r"loss\.terms\.aux\.weight=0, but the model computes aux_logits"):
        WeightedSum(("logits", "aux_logits"), terms=_terms(main=1, aux=0))


def test_an_output_that_no_term_uses_is_refused() -> None:
    with pytest.raises(UserError, match="the model computes aux_logits, but no loss term uses it"):
        WeightedSum(("logits", "aux_logits"), terms=_terms(main=1))


def test_what_is_no_term_is_refused() -> None:
    terms = {**_terms(main=1, aux=0.2), "mian": {"weight": 0.5}}  # what a misspelt name in a study becomes
    with pytest.raises(UserError, match=r"loss\.terms\.mian is not a Term; did you mean main\?"):
        WeightedSum(("logits", "aux_logits"), terms=terms)  # type: ignore[arg-type]


def test_an_output_that_no_model_has_is_refused() -> None:
    terms = {"x": Term(output="logit", weight=1, loss=PLAIN)}
    with pytest.raises(UserError, match=r"loss\.terms\.x\.output=logit: this model's outputs are logits"):
        WeightedSum(("logits",), terms=terms)
