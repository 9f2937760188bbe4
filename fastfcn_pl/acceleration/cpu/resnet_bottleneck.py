"""Parts of timm's ResNets that keep less for their gradient."""

from __future__ import annotations

from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from fastfcn_pl.acceleration.cpu.recompute_norm_relu import (
    LeanSequential,
    are_norm_relu_conv,
    norm_relu_conv,
    pool_leanly,
)


def make_lean(net: nn.Module) -> None:
    """Give bottlenecks, stems and pools of `net` the classes that keep less; all that they have stays."""
    pool_leanly(net)
    for module in net.modules():
        if type(module) is Bottleneck and LeanBottleneck.can(module):
            module.__class__ = LeanBottleneck
        elif type(module) is nn.Sequential and any(map(are_norm_relu_conv, module, module[1:], module[2:])):
            module.__class__ = LeanSequential


class LeanBottleneck(Bottleneck):
    """A bottleneck that keeps one map, not two, for each of its convolutions with batch norm and ReLU in front."""

    stands_for = Bottleneck

    @staticmethod
    def can(block: Bottleneck) -> bool:
        """Tell whether it can stand for `block`: whether there is nothing in between."""
        rows = (block.bn1, block.act1, block.conv2), (block.bn2, block.act2, block.conv3)
        between = isinstance(block.drop_block, nn.Identity) and isinstance(block.aa, nn.Identity)
        return between and all(are_norm_relu_conv(*row) for row in rows)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = norm_relu_conv(self.conv1(x), self.bn1, self.act1, self.conv2)
        x = self.bn3(norm_relu_conv(x, self.bn2, self.act2, self.conv3))
        if self.se is not None:
            x = self.se(x)
        if self.drop_path is not None:
            x = self.drop_path(x)
        x += shortcut
        return self.act3(x)
