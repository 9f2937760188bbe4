"""Groups of parameters that train at one rate and with one weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from fastfcn_pl.core.types import ParameterDepths, UserError

_UNDECAYED = {"weight_decay": 0.0, "use_fallback": True}
"""Settings of the groups without weight decay; timm's Muon trains those with `use_fallback` by AdamW."""


def parameter_groups(
    model: nn.Module, lr: float, head_lr: float, layer_decay: float | None, decay_norm_and_bias: bool
) -> list[dict[str, Any]]:
    """Return the trainable parameters of the backbone at rate `lr`, and all others (`head`) at `head_lr`.

    With `layer_decay` there is a group for each depth of the backbone: the rate is multiplied by it once for each layer
    between the group and the neck (BEiT, arXiv 2106.08254). Without `decay_norm_and_bias` vectors, biases and
    position embeddings have groups of their own without weight decay. Raises UserError if the backbone does not know
    its layers.
    """
    depths = backbone_depths(model, f"optimizer.layer_decay={layer_decay}") if layer_decay else ParameterDepths({}, 0)
    groups: dict[tuple[str, int, bool], dict[str, Any]] = {}
    undecayed = set() if decay_norm_and_bias else _undecayed(model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, _, own = name.partition(".")
        section = "backbone" if part == "backbone" else "head"
        depth = depths.depths.get(own, depths.top) if section == "backbone" else depths.top
        key = (section, depth, name in undecayed)
        if key not in groups:
            layer = f"_{depth:02}" if layer_decay and section == "backbone" else ""
            rate = lr * (layer_decay or 1) ** (depths.top - depth) if section == "backbone" else head_lr
            groups[key] = {"name": section + layer, "params": [], "lr": rate}
            if name in undecayed:
                groups[key] |= {"name": f"{section}{layer}_no_decay", **_UNDECAYED}
        groups[key]["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def backbone_depths(model: nn.Module, setting: str) -> ParameterDepths:
    """Return the depths of the backbone's parameters, which `setting` needs; raises UserError if it has none."""
    backbone = model.get_submodule("backbone")
    if not hasattr(backbone, "parameter_depths"):
        raise UserError(
            f"{setting}: {type(backbone).__name__} does not say how deep its layers are: give it a method "
            "parameter_depths(), or set the key to null"
        )
    depths: ParameterDepths = backbone.parameter_depths()  # type: ignore[operator]
    return depths


def _undecayed(model: nn.Module) -> set[str]:
    """Return the names of vectors (norms, biases, scales of layers), other biases, and position embeddings."""
    own: set[str] = getattr(model.get_submodule("backbone"), "no_weight_decay", set)()
    vectors = {name for name, parameter in model.named_parameters() if parameter.ndim <= 1 or name.endswith(".bias")}
    return vectors | {f"backbone.{name}" for name in own}
