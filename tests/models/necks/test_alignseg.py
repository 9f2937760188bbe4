"""AlignSeg's modules against the published ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastfcn_pl.models.necks.alignseg import ContextAlignment, FeatureAlignment
from fastfcn_pl.ops.interpolate import resize
from tests.support import neck_parity


def _offset_names(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{i}": f"{theirs}.{j}" for i, j in ((0, 0), (1, 1), (3, 2))}


def _adapter_names(ours: str, theirs: str, first: int) -> dict[str, str]:
    return {f"{ours}.{first + i}": f"{theirs}.{first + j}" for i, j in ((0, 0), (1, 1), (3, 2), (4, 3))}


@pytest.mark.parametrize("corrected", [False, True])
def test_the_alignment_of_two_maps_is_the_published_one(shared: Path, corrected: bool) -> None:
    cases = neck_parity.cases(shared / "parity" / "necks" / "alignseg.pt")
    assert len(cases) == 4
    names = _offset_names("offsets_high", "delta_gen1") | _offset_names("offsets_low", "delta_gen2")
    module = FeatureAlignment(32, corrected)
    neck_parity.check(module, cases["CAB_corrected_sampling" if corrected else "CAB"], names)


@pytest.mark.parametrize("corrected", [False, True])
def test_the_alignment_of_context_is_the_published_one(shared: Path, corrected: bool) -> None:
    cases = neck_parity.cases(shared / "parity" / "necks" / "alignseg.pt")
    names = _offset_names("offsets", "delta_gen") | _adapter_names("adapt", "adapt", 0)
    names |= _adapter_names("pool", "pool", 1)
    module = ContextAlignment(64, 32, corrected)
    neck_parity.check(module, cases["CAM_corrected_sampling" if corrected else "CAM"], names)


def test_offsets_of_zero_move_nothing_if_sampling_is_corrected() -> None:
    low, high = torch.randn(2, 8, 13, 17), torch.randn(2, 8, 7, 9)
    plain = low + resize(high, (13, 17), True)
    torch.testing.assert_close(FeatureAlignment(8, True)(low, high), plain, atol=1e-5, rtol=1e-5)
    assert (FeatureAlignment(8, False)(low, high) - plain).abs().max() > 0.1  # a zoom, as published
