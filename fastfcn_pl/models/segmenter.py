"""The network: backbone, neck, head and auxiliary head, composed. Pure torch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from fastfcn_pl.contracts import FeatureInfo, ModelOutput


class Backbone(nn.Module):
    """The interface of a backbone: an image `(B, 3, H, W)` to levels, finest first, as `out_info` describes them."""

    out_info: FeatureInfo
    mean: tuple[float, ...]
    """Of the images that it was trained on, as is `std`: of channels R, G, B, whose values are 0 to 1."""
    std: tuple[float, ...]


class Neck(nn.Module):
    """The interface of a neck: levels to the same levels with its own map appended, as `out_info` describes them."""

    out_info: FeatureInfo


NeckFactory = Callable[[FeatureInfo, bool], Neck]
HeadFactory = Callable[[FeatureInfo, int, bool], nn.Module]


class Segmenter(nn.Module):
    """A segmentation network: `(B, 3, H, W)` normalised floats to `ModelOutput`, logits at the head's stride.

    The neck is built as `neck(backbone.out_info, align_corners)`, a head as
    `head(levels' info, num_classes, align_corners)`; the head sees the neck's levels, the auxiliary head the
    backbone's. The auxiliary logits are computed in training or when asked for, never otherwise.
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
        super().__init__()
        self.num_classes, self.align_corners = num_classes, align_corners
        self.backbone = backbone
        self.neck = neck(backbone.out_info, align_corners)
        self.head = head(self.neck.out_info, num_classes, align_corners)
        self.aux_head = aux_head(backbone.out_info, num_classes, align_corners) if aux_head else None

    def forward(self, x: Tensor, extras: bool = False) -> ModelOutput:
        levels = self.backbone(x)
        logits = self.head(self.neck(levels)).contiguous()  # upsampling channels_last logits is four times slower
        if self.aux_head is None or not (self.training or extras):
            return ModelOutput(logits, {})
        return ModelOutput(logits, {"aux_logits": self.aux_head(levels)})

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what it returns in training."""
        return ("logits",) if self.aux_head is None else ("logits", "aux_logits")
