"""The EncNet head: Context Encoding for Semantic Segmentation (arXiv 1803.08904)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastfcn_pl.core.types import FeatureInfo, ModelOutput, UserError
from fastfcn_pl.models.heads.encoding import Encoding
from fastfcn_pl.models.layers import ConvNormAct
from fastfcn_pl.ops.interpolate import resize


class EncNetHead(nn.Module):
    """Convolution to `channels`, context encoding, SE gate, classifier: levels to logits `(B, num_classes, H/s, W/s)`.

    `kernel_size` is that of the first convolution: 1 after JPU, 3 on a dilated backbone. `lateral` adds C3 and C4 to
    the map before it is encoded. With `se_loss` it also predicts which classes occur, as `se_logits`
    `(B, num_classes)`, in training or when asked. Faithful to `EncHead` and `EncModule` in the official `encnet.py`.
    """

    def __init__(
        self,
        in_info: FeatureInfo,
        num_classes: int,
        align_corners: bool,
        *,
        channels: int,
        kernel_size: int,
        num_codes: int,
        lateral: bool,
        se_loss: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.conv5 = ConvNormAct(in_info.channels[-1], channels, kernel_size)
        self.lateral_levels = _lateral_levels(in_info) if lateral else ()
        self.connect = nn.ModuleList(ConvNormAct(in_info.channels[i], channels, 1) for i in self.lateral_levels)
        self.fusion = ConvNormAct(3 * channels, channels) if lateral else None
        self.encode = nn.Sequential(
            ConvNormAct(channels, channels, 1),
            Encoding(channels, num_codes),
            nn.BatchNorm1d(num_codes),
            nn.ReLU(inplace=True),
        )
        self.gate = nn.Sequential(nn.Linear(channels, channels), nn.Sigmoid())
        self.se_layer = nn.Linear(channels, num_classes) if se_loss else None
        self.classifier = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))
        self.extra_outputs = ("se_logits",) if se_loss else ()

    def forward(self, levels: list[Tensor], extras: bool = False) -> ModelOutput:
        x = self.conv5(levels[-1])
        if self.fusion is not None:
            maps = [conv(levels[i]) for conv, i in zip(self.connect, self.lateral_levels, strict=True)]
            x = self.fusion(torch.cat([x, *(resize(m, x.shape[-2:], self.align_corners) for m in maps)], dim=1))
        context = self.encode(x).mean(dim=1)  # (B, channels)
        gated = torch.relu(x + x * self.gate(context)[..., None, None])
        outputs = {"se_logits": self.se_layer(context)} if extras and self.se_layer is not None else {}
        return ModelOutput(self.classifier(gated), outputs)


def _lateral_levels(in_info: FeatureInfo) -> tuple[int, int]:
    """Return the indices of C3 and C4: the second and third of the backbone's four levels."""
    if len(in_info) < 4:
        raise UserError(
            f"model.head.lateral=true needs a backbone with four levels, this one has {len(in_info)}: set it to false"
        )
    return 1, 2
