"""The premise of FastFCN: a neck fitted to the last map of a dilated backbone (arXiv 1903.11816, section 3.3)."""

from __future__ import annotations

from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fastfcn_pl.core.types import FeatureInfo, ModelOutput, UserError
from fastfcn_pl.models.segmenter import Backbone, HeadFactory, Neck, NeckFactory, Segmenter
from fastfcn_pl.ops.interpolate import resize


class Approximation(Segmenter):
    """A network whose neck approximates C5 of the backbone's dilated twin, which has the very same weights.

    A 1x1 convolution brings the neck's map to the twin's channels, so that necks of any width compare. The extra output
    `approximation` `(2, B, C5, H/8, W/8)` holds the approximated features and the twin's. The backbone is frozen, and
    always in eval mode. The heads are probes: no gradient of theirs reaches the neck. Raises UserError if the backbone
    has no dilated twin.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone,
        neck: NeckFactory,
        head: HeadFactory,
        aux_head: HeadFactory | None,
        align_corners: bool,
    ) -> None:
        twin = _dilated_twin(backbone)
        super().__init__(
            num_classes,
            backbone=backbone,
            neck=partial(ProjectedNeck, neck, twin.out_info),
            head=head,
            aux_head=aux_head,
            align_corners=align_corners,
        )
        self._twin = (twin,)  # a tuple: it is none of the modules
        backbone.requires_grad_(False)
        self.train(self.training)

    def forward(self, x: Tensor, extras: bool = False) -> ModelOutput:
        with_extras = extras or self.training
        levels = self.backbone(x)
        neck_levels = self.neck(levels)
        output = self.classify(levels, [level.detach() for level in neck_levels], with_extras)
        if with_extras:
            output.extras["approximation"] = torch.stack([neck_levels[-1], self.twin_features(x)])
        return output

    @torch.no_grad()
    def twin_features(self, x: Tensor) -> Tensor:
        """Return C5 of the dilated twin, `(B, C5, H/8, W/8)`, by the backbone's weights."""
        return functional_call(self._twin[0], _state(self.backbone), (x,))[-1]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.eval()
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        return (*super().outputs, "approximation")


class ProjectedNeck(Neck):
    """`neck` with a 1x1 convolution: it appends a map with channels and stride of the last level of `target`."""

    def __init__(self, neck: NeckFactory, target: FeatureInfo, in_info: FeatureInfo, align_corners: bool) -> None:
        super().__init__()
        channels, stride = target.channels[-1], target.strides[-1]
        self.align_corners, self.size_level = align_corners, in_info.strides.index(stride)
        self.neck = neck(in_info, align_corners)
        self.project = nn.Conv2d(self.neck.out_info.channels[-1], channels, 1)
        self.out_info = self.neck.out_info.append(channels, stride)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        neck_levels = self.neck(levels)
        features = self.project(neck_levels[-1])
        return [*neck_levels, resize(features, levels[self.size_level].shape[-2:], self.align_corners)]


def _dilated_twin(backbone: Backbone) -> Backbone:
    """Return the dilated twin of `backbone` in eval mode; raises UserError if there is none of the same weights."""
    make = getattr(backbone, "dilated_twin", None)
    twin: Backbone | None = None if make is None else make().eval()
    if twin is None or _shapes(twin) != _shapes(backbone):
        reason = "cannot be dilated" if twin is None else "has other weights when it is dilated"
        raise UserError(
            f"model=approximation compares a backbone with its dilated twin, but {type(backbone).__name__} {reason}: "
            "take a convolutional one, such as model/backbone=resnet50s"
        )
    return twin


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in _state(module).items()}
