"""Any timm network that has a pyramid of features, as a backbone."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo, ParameterDepths, UserError, suggest
from fastfcn_pl.models.backbones import timm_layers
from fastfcn_pl.models.backbones.checkpointed_batch_norm import Recomputing, checkpoint_gradients
from fastfcn_pl.models.weights import efficientnet_lite, hub
from fastfcn_pl.models.weights.state_dict_io import read_state_dict, without_prefix

_FINEST_STRIDE = 4
_PYRAMID = (8, 16, 32)
_WHAT_WORKS = "take a net with levels at strides 8, 16 and 32, such as resnet50s, convnext_tiny or efficientnet_lite0"


class TimmBackbone(nn.Module):
    """The levels of a timm network at stride 4 and coarser: `(B, 3, H, W)` normalised floats to a list, finest first.

    `output_stride` 8 or 16 trades the last strides for dilation. `pretrained` is true (from the hub), a file, or
    false; missing weights raise UserError. Channels and strides are measured by running the network once on the meta
    device. An image of a size that it cannot take is padded at the bottom and right with the mean colour. With
    `grad_checkpointing`, training keeps only the inputs of stages and computes the rest again: less memory, more time,
    the same gradients. `drop_path_rate` is the share of images that skip the last residual branch in training, where
    the network has stochastic depth (arXiv 1603.09382).
    """

    def __init__(
        self,
        *,
        name: str,
        output_stride: int,
        pretrained: bool | str,
        grad_checkpointing: bool = False,  # missing in checkpoints written before this option existed
        drop_path_rate: float = 0.0,  # likewise
    ) -> None:
        super().__init__()
        if output_stride not in _PYRAMID:
            raise UserError(f"model.backbone.output_stride={output_stride}: use 32, 16 or 8")
        if pretrained is None:
            raise UserError("model.backbone.pretrained=null: use true (from the hub), a file of weights, or false")
        _check_name(name)
        with hub.access(name, *_source(name, pretrained)):
            self._layout = _find_layout(name, output_stride)
            options = timm_layers.drop_path_options(name, self._layout.options, drop_path_rate)
            self.net = _create(name, options, pretrained)
        self._name = name
        self.out_info = self._layout.levels.info
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
        height, width = x.shape[-2:]
        multiple = self._layout.multiple
        if multiple > 1:  # always: a branch would tie an exported file to sizes of one kind
            x = F.pad(x, (0, _round_up(width, multiple) - width, 0, _round_up(height, multiple) - height))
        levels = self.net(x)
        pyramid = []
        for i, stride in zip(self._layout.levels.indices, self.out_info.strides, strict=True):
            level = levels[i].permute(0, 3, 1, 2) if self._layout.levels.channels_last else levels[i]
            if multiple > 1:
                level = _cropped(level, _round_up(height, stride) // stride, _round_up(width, stride) // stride)
            pyramid.append(level)
        return pyramid


def _cropped(level: Tensor, height: int, width: int) -> Tensor:
    """Return the first rows and columns of a level."""
    if not torch.compiler.is_exporting():
        return level[..., :height, :width]
    # A view would tie the file to sizes at which something is cut off: torch.export asks if it is contiguous.
    rows, columns = (torch.arange(length, device=level.device) for length in (height, width))
    return level.index_select(2, rows).index_select(3, columns)


def _round_up(length: int, multiple: int) -> int:
    """Return the next multiple, in arithmetic of positive numbers: ONNX's division rounds negative ones to zero."""
    return (length + multiple - 1) // multiple * multiple


@dataclass(frozen=True)
class _Levels:
    """The features of a timm network that make up the pyramid."""

    indices: tuple[int, ...]
    info: FeatureInfo
    channels_last: bool
    """Features are `(B, H, W, C)`."""


@dataclass(frozen=True)
class _Layout:
    """The options and image sizes with which a timm network has a pyramid."""

    options: dict[str, Any]
    levels: _Levels
    multiple: int
    """Height and width have to be multiples of this."""


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


def _find_layout(name: str, output_stride: int) -> _Layout:
    """Find options and sizes with which the network has levels at the expected strides; raises UserError if none do."""
    dilation = {} if output_stride == 32 else {"output_stride": output_stride}
    reason = ""
    for extra in (
        {},
        {"strict_img_size": False},
    ):  # Swin takes other sizes than the one it was trained at with the latter
        options = {**dilation, **extra}
        try:
            with torch.device("meta"):  # shapes without arithmetic: a tenth of a second for any network
                net = timm.create_model(name, features_only=True, pretrained=False, **options).eval()
        except (TypeError, AssertionError, RuntimeError, AttributeError, NotImplementedError) as error:
            reason = reason or _why_not_created(name, output_stride, error)
            continue
        size = net.pretrained_cfg["input_size"][-1]
        for multiple, shape in (
            (1, (97, 129)),
            *((n, (3 * n, 4 * n)) for n in (32, 64, 128)),
            (size, (size, 2 * size)),
        ):
            result = _measure(net, output_stride, shape)
            if isinstance(result, _Levels):
                return _Layout(options, result, multiple)
        square = _measure(net, output_stride, (size, size))
        reason = reason or (square if isinstance(square, str) else f"it takes images of {size}x{size} only")
    raise UserError(f"model.backbone.name={name} does not serve: {reason}; {_WHAT_WORKS}")


def _why_not_created(name: str, output_stride: int, error: Exception) -> str:
    if output_stride != 32:
        return f"timm cannot build it with output_stride={output_stride} ({error})"
    return f"timm cannot give its features ({error})"


def _measure(net: nn.Module, output_stride: int, shape: tuple[int, int]) -> _Levels | str:
    """Run the network on `shape` on the meta device; return its usable levels, or the reason why it has none."""
    strides, channels = net.feature_info.reduction(), net.feature_info.channels()  # type: ignore[union-attr, operator]
    indices = tuple(i for i, stride in enumerate(strides) if stride >= _FINEST_STRIDE)
    expected = [min(stride, output_stride) for stride in _PYRAMID]
    if [strides[i] for i in indices[-3:]] != expected:
        return f"its levels have strides {strides}, but {expected} are needed"
    try:
        with torch.no_grad():
            levels = net(torch.zeros(1, 3, *shape, device="meta"))
    except Exception as error:  # networks fail in any way at a size that they cannot take
        reason = " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__
        return f"it cannot take an image of {shape[0]}x{shape[1]} ({reason})"
    info = FeatureInfo(tuple(channels[i] for i in indices), tuple(strides[i] for i in indices))
    shapes = [tuple(levels[i].shape[1:]) for i in indices]
    sizes = [tuple(-(-length // stride) for length in shape) for stride in info.strides]
    if shapes == [(c, *size) for c, size in zip(info.channels, sizes, strict=True)]:
        return _Levels(indices, info, channels_last=False)
    if shapes == [(*size, c) for c, size in zip(info.channels, sizes, strict=True)]:
        return _Levels(indices, info, channels_last=True)
    return f"at {shape[0]}x{shape[1]} its levels are {shapes}, which do not have strides {list(info.strides)}"


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
