"""The backbone of mmsegmentation's FastFCN models: strided and dilated at once."""

from __future__ import annotations

from fastfcn_pl.models.backbones.timm import TimmBackbone


class StridedDilatedResNet(TimmBackbone):
    """A ResNet at stride 32 whose 3x3 convolutions in layer3 and layer4 are dilated all the same, by 2 and by 4.

    The first block of a stage has half of its dilation. As `ResNetV1c` of mmsegmentation with `strides=(1, 2, 2, 2)`
    and `dilations=(1, 1, 2, 4)`; weights trained with it want it.
    """

    def __init__(
        self,
        *,
        name: str,
        output_stride: int,
        pretrained: bool | str,
        grad_checkpointing: bool = False,  # what checkpoints from before it say nothing about
    ) -> None:
        super().__init__(
            name=name, output_stride=output_stride, pretrained=pretrained, grad_checkpointing=grad_checkpointing
        )
        for stage, dilation in (("layer3", 2), ("layer4", 4)):
            for i, block in enumerate(self.net.get_submodule(stage).children()):
                conv = block.get_submodule("conv2")
                conv.dilation = conv.padding = (dilation // 2 if i == 0 else dilation,) * 2  # type: ignore[assignment]
