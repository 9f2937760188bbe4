"""SegFormer's decoder against the published one."""

from __future__ import annotations

from pathlib import Path

from fastfcn_pl.core.types import FeatureInfo
from fastfcn_pl.models.necks.segformer_mlp import SegFormerMLP
from tests.support import neck_parity

NAMES = {
    **{f"projections.{i}": f"linear_projections.{i}.proj" for i in range(4)},
    "fuse.0": "linear_fuse",
    "fuse.1": "batch_norm",
}


def test_outputs_loss_and_gradients_are_the_published_ones(shared: Path) -> None:
    cases = neck_parity.cases(shared / "parity" / "necks" / "segformer_head.pt")
    assert list(cases) == ["odd_97x129"]
    case = cases["odd_97x129"]
    info = FeatureInfo(tuple(case["hyper"]["hidden_sizes"]), (4, 8, 16, 32))
    neck = SegFormerMLP(info, True, width=case["hyper"]["decoder_hidden_size"], output_level=2)
    assert sum(parameter.numel() for parameter in neck.parameters()) == case["parameter_count"]
    neck_parity.check(neck, case, NAMES, call=lambda neck, *levels: neck(list(levels))[-1])
