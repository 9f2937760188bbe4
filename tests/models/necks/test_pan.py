"""Pyramid Attention Network against segmentation_models.pytorch's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.necks.pan import PAN, halved
from tests.support import neck_parity

PARTS = {
    "attention.context": "fpa.branch1.1",
    "attention.features": "fpa.mid.0",
    "attention.at_half": "fpa.down1.1",
    "attention.at_quarter": "fpa.down2.1",
    "attention.at_eighth.0": "fpa.down3.1",
    "attention.at_eighth.1": "fpa.down3.2",
    "attention.merge_quarter": "fpa.conv2",
    "attention.merge_half": "fpa.conv1",
    **{f"upsamples.{i}.gate": f"gau{3 - i}.conv1.1" for i in range(3)},
    **{f"upsamples.{i}.conv_low": f"gau{3 - i}.conv2" for i in range(3)},
}
NAMES = {f"{ours}.{i}": f"{theirs}.{part}" for ours, theirs in PARTS.items() for i, part in enumerate(("conv", "bn"))}


def test_outputs_loss_and_gradients_are_the_published_ones(shared: Path) -> None:
    """Gradients of the innermost convolutions are badly conditioned in training: they have one channel."""
    cases = neck_parity.cases(shared / "parity" / "necks" / "pan_smp.pt")
    assert list(cases) == ["os16_129x161"]
    case = cases["os16_129x161"]
    info = FeatureInfo(tuple(case["hyper"]["encoder_channels"]), (4, 8, 16, 32))
    neck = PAN(info, False, width=case["hyper"]["decoder_channels"], output_level=2)
    assert sum(parameter.numel() for parameter in neck.parameters()) == case["parameter_count"]
    neck_parity.check(neck, case, NAMES, call=lambda neck, *levels: neck(list(levels))[-1], train_tolerance=1e-2)


@pytest.mark.parametrize("size", [(8, 8), (9, 11), (2, 3), (1, 1), (1, 6)])
def test_halving_is_the_published_pool_but_for_one_row_or_column(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    height, width = (max(side, 2) for side in size)
    repeated = x.expand(-1, -1, height, width)
    assert torch.equal(halved(x), F.max_pool2d(repeated, 2))
