"""The network: backbone, neck, head and auxiliary head, composed. Pure torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo, ModelOutput


class Backbone(nn.Module):
    """The interface of a backbone: an image `(B, C, H, W)` to levels, finest first, as `out_info` describes them.

    It may have a method `parameter_depths()` that returns `ParameterDepths`, without which `optimizer.layer_decay` and
    `freeze=backbone.stem` are refused, and one `no_weight_decay()` that returns the names of parameters which weight
    decay would harm, such as position embeddings. `model=approximation` needs `dilated_twin()`: a backbone of the same
    weights on the meta device whose last level has stride 8.
    """

    out_info: FeatureInfo
    in_chans: int = 3
    """Channels of an image."""
    mean: tuple[float, ...]
    """Mean of the images that it was trained on, of channels R, G, B with values 0 to 1; `std` likewise."""
    std: tuple[float, ...]


class Neck(nn.Module):
    """The interface of a neck: levels to the same levels with its own map appended, as `out_info` describes them."""

    out_info: FeatureInfo


NeckFactory = Callable[[FeatureInfo, bool], Neck]
HeadFactory = Callable[[FeatureInfo, int, bool], nn.Module]


class Segmenter(nn.Module):
    """A segmentation network: `(B, in_chans, H, W)` normalised floats to `ModelOutput`, logits at the head's stride.

    The neck is built as `neck(backbone.out_info, align_corners)`, a head as
    `head(levels' info, num_classes, align_corners)`; the head sees the neck's levels, the auxiliary head the
    backbone's. A head maps levels to logits; one with `extra_outputs`, a tuple of names that may be empty, takes
    `extras` and returns a `ModelOutput`. Extras and the auxiliary logits are computed in training or when asked for,
    never otherwise. The norms whose names are in `frozen_norms` stay in eval mode.
    """

    frozen_norms: tuple[str, ...] = ()

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
        super().__init__()
        self.num_classes, self.align_corners = num_classes, align_corners
        self.backbone = backbone
        self.in_chans: int = getattr(backbone, "in_chans", 3)
        self.takes_rgb = self.in_chans == 3
        """Whether images are photographs, not three other bands; SegmentationModule sets it from the data set."""
        self.neck = neck(backbone.out_info, align_corners)
        self.head = head(self.neck.out_info, num_classes, align_corners)
        self.head_outputs: tuple[str, ...] | None = getattr(self.head, "extra_outputs", None)
        self.aux_head = aux_head(backbone.out_info, num_classes, align_corners) if aux_head else None

    def forward(self, x: Tensor, extras: bool = False) -> ModelOutput:
        with_extras = extras or self.training
        levels = self.backbone(x)
        return self.classify(levels, self.neck(levels), with_extras)

    def classify(self, levels: list[Tensor], neck_levels: list[Tensor], with_extras: bool) -> ModelOutput:
        """Return the output of the head for the neck's levels, with the auxiliary head's for the backbone's."""
        if self.head_outputs is None:
            logits, outputs = self.head(neck_levels), {}
        else:
            logits, outputs = self.head(neck_levels, extras=with_extras)
        if self.aux_head is not None and with_extras:
            outputs = {"aux_logits": self.aux_head(levels), **outputs}
        return ModelOutput(logits.contiguous(), outputs)  # upsampling channels_last logits is four times slower

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.frozen_norms:
            self.get_submodule(name).eval()
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs in training."""
        return ("logits", *(() if self.aux_head is None else ("aux_logits",)), *(self.head_outputs or ()))
