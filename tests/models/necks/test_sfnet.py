"""SFNet's decoder and its alignments against the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.necks.sfnet import FlowAlignment, GatedDualFlowAlignment, SFNet
from fastfcn_pl.ops.interpolate import resize
from tests.support import neck_parity

ALIGNMENT = {"compress_high": "down_h", "compress_low": "down_l", "flow": "flow_make", "gate": "flow_gate.0"}


def _decoder_names(alignment: str) -> dict[str, str]:
    """Return the published names of a decoder's modules."""
    names = {"context.0.fuse.0": "ppm.bottleneck.0", "context.0.fuse.1": "ppm.bottleneck.1"}
    for i in range(4):
        names |= {f"context.0.pools.{i}.{j}": f"ppm.stages.{i}.{j}" for j in (1, 2)}
    for i in range(3):
        names |= {f"laterals.{i}.{j}": f"fpn_in.{i}.{j}" for j in (0, 1)}
        names |= {f"smooth.{i}.{j}": f"fpn_out.{i}.0.{j}" for j in (0, 1)}
        if alignment == "flow":
            names |= {f"alignments.{i}.{ours}": f"fpn_out_align.{i}.{theirs}" for ours, theirs in ALIGNMENT.items()}
    return names | {f"fuse.{j}": f"conv_last.0.{j}" for j in (0, 1)}


def _alignment(name: str) -> tuple[nn.Module, Any]:
    if name == "fam_v1":
        return FlowAlignment(32, 16), FlowAlignment.warped
    return GatedDualFlowAlignment(32, 16, name == "fam_v2_pooling_attention"), nn.Module.__call__


@pytest.mark.parametrize("name", ["fam_v1", "fam_v2_gated", "fam_v2_pooling_attention"])
def test_alignments_are_the_published_ones(shared: Path, name: str) -> None:
    case = neck_parity.cases(shared / "parity" / "necks" / "sfnet_fam.pt")[name]
    module, call = _alignment(name)
    neck_parity.check(module, case, ALIGNMENT, call=call)


@pytest.mark.parametrize(
    ("name", "alignment"), [("decoder_aligned_odd_97x129", "flow"), ("decoder_plain_upernet_odd_97x129", "bilinear")]
)
def test_decoders_are_the_published_ones(shared: Path, name: str, alignment: str) -> None:
    cases = neck_parity.cases(shared / "parity" / "necks" / "sfnet_fam.pt")
    assert len(cases) == 5
    case = cases[name]
    info = FeatureInfo(tuple(case["hyper"]["fpn_inplanes"]), (4, 8, 16, 32))
    neck = SFNet(info, False, width=32, bins=[1, 2, 3, 6], dropout=0.0, alignment=alignment, output_level=2)
    assert sum(parameter.numel() for parameter in neck.parameters()) == case["parameter_count"]
    names = _decoder_names(alignment)
    neck_parity.check(neck, case, names, call=lambda neck, *levels: neck(list(levels))[-1])


def test_a_flow_of_zero_is_bilinear_interpolation() -> None:
    module, low, high = FlowAlignment(8, 4), torch.randn(2, 8, 25, 33), torch.randn(2, 8, 13, 17)
    nn.init.zeros_(module.flow.weight)
    torch.testing.assert_close(module.warped(low, high), resize(high, (25, 33), True), atol=1e-5, rtol=1e-5)


def test_a_constant_flow_translates_the_inside() -> None:
    """A flow of 2 W / (W - 1) moves each pixel by one pixel of the fine grid."""
    module, low, high = FlowAlignment(2, 1), torch.zeros(1, 2, 6, 9), torch.randn(1, 2, 6, 9)
    module.flow.forward = lambda x: torch.tensor([2 * 9 / 8, 0.0])[:, None, None].expand(1, 2, 6, 9)  # type: ignore[method-assign]
    torch.testing.assert_close(module.warped(low, high)[..., :-1], high[..., 1:], atol=1e-5, rtol=1e-5)


def test_an_unknown_alignment_is_refused() -> None:
    info = FeatureInfo((8, 8, 8), (8, 16, 32))
    with pytest.raises(UserError, match=r"model\.neck\.alignment=warp: use flow, gated, pooled or bilinear"):
        SFNet(info, True, width=8, bins=[1], dropout=0.0, alignment="warp", output_level=3)
