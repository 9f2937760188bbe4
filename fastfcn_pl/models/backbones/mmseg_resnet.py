"""The backbone of mmsegmentation's FastFCN models: strided and dilated at once."""

from __future__ import annotations

from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.backbones.timm import TimmBackbone


class StridedDilatedResNet(TimmBackbone):
    """A ResNet at stride 32 whose 3x3 convolutions are also dilated, by 2 in layer3 and by 4 in layer4.

    The first block of a stage has half of its dilation. Faithful to `ResNetV1c` of mmsegmentation with
    `strides=(1, 2, 2, 2)` and `dilations=(1, 1, 2, 4)`; weights that were trained with it need it.
    """

    def __init__(
        self,
        *,
        name: str,
        output_stride: int,
        pretrained: bool | str,
        grad_checkpointing: bool = False,  # missing in checkpoints written before this option existed
        drop_path_rate: float = 0.0,  # likewise
        in_chans: int = 3,  # likewise
    ) -> None:
        super().__init__(
            name=name,
            output_stride=output_stride,
            pretrained=pretrained,
            grad_checkpointing=grad_checkpointing,
            drop_path_rate=drop_path_rate,
            in_chans=in_chans,
        )
        try:
            for stage, dilation in (("layer3", 2), ("layer4", 4)):
                for i, block in enumerate(self.net.get_submodule(stage).children()):
                    conv = block.get_submodule("conv2")
                    conv.dilation = conv.padding = (dilation // 2 if i == 0 else dilation,) * 2  # type: ignore[assignment]
        except AttributeError as error:
            raise UserError(
                f"model.backbone.name={name}: only a ResNet can be strided and dilated at once: use "
                f"model/backbone=resnet50 model.backbone.name={name}"
            ) from error
