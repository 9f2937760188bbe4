"""timm's own knowledge of a network's parameters: how deep they are, and which ones weight decay would harm.

timm keeps it with the whole network, and renames modules when it takes the features out of one. So the whole network
is built once more, on the meta device, and its names are matched with those of the features.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import timm
import torch
from timm.layers import DropPath
from timm.models import group_parameters
from torch import nn

from fastfcn_pl.core.types import ParameterDepths, UserError

_WRAPPED = ("model.", "body.", "graph_module.")
"""Names under which timm's feature extractors keep a network that they leave as it is."""


def parameter_depths(net: nn.Module, name: str, options: dict[str, Any], prefix: str) -> ParameterDepths:
    """Return the depths of the parameters of `net`, the features of timm's network `name` built with `options`.

    Depths are those of `timm.optim.param_groups_layer_decay`, but blocks after the last feature do not count. Names
    get `prefix`, the path of `net` in its backbone. Raises UserError if timm does not know the order of its layers.
    """
    whole = _whole(name, options)
    if not hasattr(whole, "group_matcher"):
        raise UserError(
            f"model.backbone.name={name}: timm does not know the order of its layers: set optimizer.layer_decay=null, "
            "and use names of modules in freeze"
        )
    whole_depths = group_parameters(whole, whole.group_matcher(coarse=False), reverse=True)
    depths = {prefix + own: whole_depths[theirs] for own, theirs in _names(net, whole).items()}
    return ParameterDepths(depths, top=min(max(whole_depths.values()), max(depths.values()) + 1))


def no_weight_decay(net: nn.Module, name: str, options: dict[str, Any], prefix: str) -> set[str]:
    """Return the parameters of `net` that timm trains without weight decay, such as position embeddings."""
    whole = _whole(name, options)
    patterns = whole.no_weight_decay() if hasattr(whole, "no_weight_decay") else ()
    return {prefix + own for own, theirs in _names(net, whole).items() if any(fnmatchcase(theirs, p) for p in patterns)}


def drop_path_options(name: str, options: dict[str, Any], rate: float) -> dict[str, Any]:
    """Return `options` with which timm builds the network with stochastic depth.

    Raises UserError if it has none, or for a `rate` that is no share.
    """
    if rate is None or not 0 <= rate < 1:
        raise UserError(f"model.backbone.drop_path_rate={rate}: use a number from 0 to less than 1")
    if rate == 0:
        return options
    with_rate = {**options, "drop_path_rate": rate}
    try:
        modules = list(_whole(name, with_rate).modules())
    except TypeError:  # of its constructor, which has no such argument
        modules = []
    if not any(isinstance(module, DropPath) and module.drop_prob for module in modules):
        raise UserError(
            f"model.backbone.drop_path_rate={rate}: {name} has no stochastic depth: set it to 0, or take a net "
            "that has, such as resnet50s, convnext_tiny or swin_tiny_patch4_window7_224"
        )
    return with_rate


def _whole(name: str, options: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, **{k: v for k, v in options.items() if k != "out_indices"})


def _names(net: nn.Module, whole: nn.Module) -> dict[str, str]:
    """Return the names of the parameters in the whole network, by their names in its features."""
    theirs = {}
    for name, _ in whole.named_parameters():
        for own in (name, name.replace(".", "_", 1), *(wrapper + name for wrapper in _WRAPPED)):
            theirs[own] = name
    return {own: theirs[own] for own, _ in net.named_parameters() if own in theirs}
