"""Building a timm network that returns features, with its weights."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo, ParameterDepths, UserError, suggest
from fastfcn_pl.models.backbones import timm_layers
from fastfcn_pl.models.backbones.checkpointed_batch_norm import Recomputing, checkpoint_gradients
from fastfcn_pl.models.backbones.image_sizes import by_tiles, cropped, padded
from fastfcn_pl.models.weights import efficientnet_lite, hub
from fastfcn_pl.models.weights.state_dict_io import read_state_dict, without_prefix

NOT_BUILT = (TypeError, KeyError, AssertionError, RuntimeError, AttributeError, NotImplementedError)
"""Errors of timm's networks for options that they do not have."""


Axes = Literal["NCHW", "NHWC", "NLC"]


@dataclass(frozen=True)
class Layout:
    """The options and image sizes with which a timm network has the features that a backbone needs."""

    options: dict[str, Any]
    indices: tuple[int, ...]
    """The features among those that the network returns, one for each level."""
    info: FeatureInfo
    axes: Axes
    """Order of the axes of features; tokens are `NLC`, row by row."""
    multiple: int
    """Height and width have to be multiples of this."""
    tile: int | None
    """Side of the squares that the network takes, if it takes no others."""


class TimmFeatures(nn.Module):
    """Features of a timm network for images of any size, with its weights: the base of backbones.

    `find_layout` is called when the hub can be asked. `pretrained` is true (from the hub), a file, or false; missing
    weights raise UserError. With `grad_checkpointing`, training keeps only the inputs of stages and computes the rest
    again: less memory, more time, the same gradients. Images have `in_chans` channels; timm adapts the weights of the
    first layer, which were trained on three.
    """

    out_info: FeatureInfo

    def __init__(
        self,
        name: str,
        pretrained: bool | str,
        grad_checkpointing: bool,
        drop_path_rate: float,
        in_chans: int,
        find_layout: Callable[[], Layout],
    ) -> None:
        super().__init__()
        if pretrained is None:
            raise UserError("model.backbone.pretrained=null: use true (from the hub), a file of weights, or false")
        if in_chans < 1:
            raise UserError(f"model.backbone.in_chans={in_chans}: give the number of channels of an image, 1 or more")
        _check_name(name)
        with hub.access(name, *_source(name, pretrained)):
            self._layout = find_layout()
            options = timm_layers.drop_path_options(name, self._layout.options, drop_path_rate)
            self.net = _create(name, options if in_chans == 3 else {**options, "in_chans": in_chans}, pretrained)
        self._name, self.in_chans = name, in_chans
        if self._layout.axes == "NLC":
            self.net.output_fmt = "NLC"  # type: ignore[assignment]
        cfg: dict[str, Any] = self.net.pretrained_cfg  # type: ignore[assignment]
        self.mean, self.std = tuple(cfg["mean"]), tuple(cfg["std"])
        self._recomputing = Recomputing() if grad_checkpointing else None
        if grad_checkpointing:
            checkpoint_gradients(self.net, name)

    def forward(self, x: Tensor) -> list[Tensor]:
        if self._recomputing is None:
            return self._levels(x)
        self._recomputing.end()
        levels = self._levels(x)
        self._recomputing.begin(self.net)
        return levels

    def parameter_depths(self) -> ParameterDepths:
        return timm_layers.parameter_depths(self.net, self._name, self._layout.options, "net.")

    def no_weight_decay(self) -> set[str]:
        return timm_layers.no_weight_decay(self.net, self._name, self._layout.options, "net.")

    def _levels(self, x: Tensor) -> list[Tensor]:
        multiple, tile = self._layout.multiple, self._layout.tile
        images = padded(x, multiple)
        levels = self._pyramid(self._maps(images) if tile is None else by_tiles(self._maps, images, tile))
        return levels if multiple == 1 else cropped(levels, self.out_info.strides, x.shape[-2:])

    def _maps(self, x: Tensor) -> list[Tensor]:
        features = self.net(x)
        maps = [features[i] for i in self._layout.indices]
        if self._layout.axes == "NLC":
            rows, columns = (length // self._layout.info.strides[0] for length in x.shape[-2:])
            return [m.transpose(1, 2).reshape(len(m), -1, rows, columns) for m in maps]
        return [m.permute(0, 3, 1, 2) for m in maps] if self._layout.axes == "NHWC" else maps

    def _pyramid(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the levels that a backbone makes of the features."""
        return maps


def features_on_meta(name: str, options: dict[str, Any]) -> nn.Module:
    """Build the network for shapes without arithmetic, which takes a tenth of a second."""
    with torch.device("meta"):
        return timm.create_model(name, features_only=True, pretrained=False, **options).eval()


def shapes_on_meta(net: nn.Module, size: tuple[int, int]) -> list[tuple[int, ...]] | str:
    """Return the shapes of the features of an image, or the reason why the network cannot take it."""
    try:
        with torch.no_grad():
            return [tuple(feature.shape[1:]) for feature in net(torch.zeros(1, 3, *size, device="meta"))]
    except Exception as error:  # networks fail in any way at a size that they cannot take
        return f"it cannot take an image of {size[0]}x{size[1]} ({message_of(error)})"


def message_of(error: Exception) -> str:
    """Return one line from an error of timm, some of which have no message, or only a key."""
    if isinstance(error, KeyError):
        return f"timm does not find {error.args[0]}"
    return " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__


def _check_name(name: str) -> None:
    if ":" in name or timm.is_model(name):  # the hub itself checks hf-hub:organisation/model
        return
    base = name.split(".")[0]
    close = difflib.get_close_matches(base, timm.list_models(), n=3, cutoff=0.5)
    hint = suggest(base, close) if close else "see timm.list_models()"
    raise UserError(f"model.backbone.name={name}: timm has no such network; {hint}")


def _source(name: str, pretrained: bool | str) -> tuple[str | None, str | None]:
    """Return the hub's repository, or else the address, from which the network's weights are downloaded."""
    if name.startswith("hf-hub:"):
        return name.removeprefix("hf-hub:"), None
    cfg = timm.get_pretrained_cfg(name) if pretrained is True and timm.is_model_pretrained(name) else None
    return (cfg.hf_hub_id, cfg.url) if cfg is not None else (None, None)


def _create(name: str, options: dict[str, Any], pretrained: bool | str) -> nn.Module:
    """Build the network; with `pretrained`, make sure that every weight was loaded."""
    if pretrained is False:
        return timm.create_model(name, features_only=True, pretrained=False, **options)
    source: dict[str, Any] = {}
    if isinstance(pretrained, str):
        source = {"pretrained_cfg_overlay": {"state_dict": _timm_state_dict(name, pretrained)}}
    # timm loads the features of a network leniently. Two networks of one seed, with and without loading, differ in all
    # weights that were loaded, whatever the names in the file.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random = timm.create_model(name, features_only=True, pretrained=False, **options)
        torch.manual_seed(0)
        try:
            net = timm.create_model(name, features_only=True, pretrained=True, **options, **source)
        except Exception as error:  # the hub's client raises errors of many libraries
            raise UserError(_why_not_loaded(name, pretrained, error)) from error
    before = dict(random.named_parameters())
    missing = [n for n, p in net.named_parameters() if p.ndim > 1 and not p.is_meta and torch.equal(p, before[n])]
    if missing:
        raise UserError(
            f"model.backbone.pretrained={pretrained}: {len(missing)} weights of {name} are not in it, "
            f"the first is {missing[0]}: give the weights of this very network, or pretrained=false"
        )
    return net


def _timm_state_dict(name: str, source: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        target = timm.create_model(name, pretrained=False).state_dict()
    state = without_prefix(read_state_dict(source), [next(iter(target)), efficientnet_lite.FIRST], source)
    return efficientnet_lite.to_timm(state, target) if efficientnet_lite.FIRST in state else state


def _why_not_loaded(name: str, pretrained: bool | str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(pretrained, str):
        return f"model.backbone.pretrained={pretrained} does not fit {name}: {reason}"
    return (
        f"pretrained weights of {name} could not be fetched ({reason}): check the network, give a file as "
        "model.backbone.pretrained=<path>, or train from scratch with model.backbone.pretrained=false"
    )
