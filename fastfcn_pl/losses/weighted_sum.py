"""A weighted sum of named loss terms, each on one output of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import ModelOutput, UserError, suggest

OPTIONAL_OUTPUTS = ("aux_logits", "se_logits")
"""Outputs that only some models have: a term on one that is missing is left out."""


class Term(nn.Module):
    """`weight` times `loss(value, target, align_corners)` for the `value` of the network's output named `output`."""

    def __init__(self, *, output: str, weight: float, loss: nn.Module) -> None:
        super().__init__()
        self.output, self.weight, self.loss = output, weight, loss

    def forward(self, value: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        """Return the loss, not weighted."""
        return self.loss(value, target, align_corners)


class WeightedSum(nn.Module):
    """The weighted sum of `terms`, those whose output the network has.

    The model decides which parts exist (`model/aux_head=none`), so that a weight of 0 on a part that exists raises
    UserError, as does a term on an output that no model has.
    """

    def __init__(self, outputs: Sequence[str], *, terms: Mapping[str, Term]) -> None:
        super().__init__()
        for name, term in terms.items():
            if not isinstance(term, Term):
                others = [other for other, value in terms.items() if isinstance(value, Term)]
                raise UserError(f"loss.terms.{name} is not a Term; {suggest(name, others)}")
            if term.output not in outputs and term.output not in OPTIONAL_OUTPUTS:
                raise UserError(
                    f"loss.terms.{name}.output={term.output}: this model's outputs are {', '.join(outputs)}"
                )
            if term.output in outputs and term.weight == 0:
                raise UserError(
                    f"loss.terms.{name}.weight=0, but the model computes {term.output}: take the part out of the model "
                    "(model/aux_head=none for the auxiliary head) or the term out of the loss (~loss.terms.<name>)"
                )
        self.terms = nn.ModuleDict({name: term for name, term in terms.items() if term.output in outputs})
        unused = set(outputs) - {term.output for term in self.terms.values()}
        if unused:
            raise UserError(
                f"the model computes {', '.join(sorted(unused))}, but no loss term uses it: add one to loss.terms"
            )

    def forward(self, output: ModelOutput, target: Tensor, align_corners: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and each term by name, not weighted, in float32 at least."""
        values, terms = output.named(), cast(Mapping[str, Term], self.terms)
        with torch.autocast(target.device.type, enabled=False):
            losses = {name: term(values[term.output], target, align_corners) for name, term in terms.items()}
        return torch.stack([term.weight * losses[name] for name, term in terms.items()]).sum(), losses
