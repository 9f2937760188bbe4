"""The dilated baseline, which is a choice about the backbone."""

from __future__ import annotations

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.necks.none import NoNeck


class Dilated(NoNeck):
    """Pass on the last map of a backbone whose strides were traded for dilation (DRN, DeepLab; FastFCN, section 3.1).

    The option `model/neck=dilated` sets `model.backbone.output_stride` to 8. Raises UserError if the backbone is not
    dilated.
    """

    def __init__(self, in_info: FeatureInfo, align_corners: bool) -> None:
        if in_info.strides[-1] >= 32:
            raise UserError(
                f"model/neck=dilated needs a dilated backbone, but the strides of this one are {in_info.strides}: "
                "set model.backbone.output_stride=8 or 16, or take model/neck=none"
            )
        super().__init__(in_info, align_corners)
