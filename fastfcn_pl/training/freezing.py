"""Parts of a network that do not train."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.training.parameter_groups import backbone_depths

STEM = "backbone.stem"
"""Pattern for the first layers of any backbone that knows its depths."""


def freeze(model: Segmenter, patterns: str | Sequence[str]) -> None:
    """Freeze the parameters and modules that match one of the `patterns`: names, or globs in which `*` crosses dots.

    Frozen parameters have no gradient. Norms with running statistics whose parameters are all frozen stay in eval
    mode. Raises UserError for a pattern that matches nothing, or if nothing is left to train.
    """
    single = isinstance(patterns, str) or not isinstance(patterns, Sequence)
    patterns = [str(pattern) for pattern in ([patterns] if single else patterns)]
    names = {name for pattern in patterns for name in _matching(model, pattern)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in names)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"freeze={patterns} leaves nothing to train: leave out the head")
    model.frozen_norms = tuple(_frozen_norms(model, names))
    model.train(model.training)


def _matching(model: Segmenter, pattern: str) -> set[str]:
    """Return the names of the parameters and modules that match a pattern, or are inside of a module that does."""
    if pattern == STEM and hasattr(model.backbone, "parameter_depths"):
        depths = backbone_depths(model, f"freeze={STEM}").depths
        return {f"backbone.{name}" for name, depth in depths.items() if depth == 0}
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters()) if name]
    matching = {name for name in names if any(fnmatchcase(path, pattern) for path in _paths(name))}
    if not matching:
        close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
        parts = [name for name, _ in model.named_children()]
        raise UserError(f"freeze={pattern} is no part of the network; {suggest(pattern, close or [*parts, STEM])}")
    return matching


def _paths(name: str) -> Iterator[str]:
    """Yield a dotted name and those of the modules around it."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _frozen_norms(model: nn.Module, names: set[str]) -> Iterator[str]:
    for name, module in model.named_modules():
        if getattr(module, "running_var", None) is not None:
            own = [f"{name}.{parameter}" for parameter, _ in module.named_parameters(recurse=False)]
            if names.issuperset(own or [name]):
                yield name
