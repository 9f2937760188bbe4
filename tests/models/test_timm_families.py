"""Every family of timm serves as a backbone, or is refused for a reason that is true."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from tests.benchmarks import timm_families
from tests.support.timm_families import outcome

SAMPLE = ["resnet", "vision_transformer"]
UNPADDED = {"inception_resnet_v2", "inception_v3", "inception_v4", "pit", "xception"}
"""Convolutions without padding: levels are smaller than their strides say."""
OTHER_STRIDES = {"crossvit", "efficientvim", "efficientvit_msra", "levit", "nest", "sequencer", "shvit"}
FIXED_PATCHES = {"convmixer"}
"""Patches of 7 pixels that timm does not resample."""


@pytest.mark.parametrize(
    "family",
    [
        *SAMPLE,
        *(pytest.param(family, marks=pytest.mark.exhaustive) for family in timm.list_modules() if family not in SAMPLE),
    ],
)
def test_every_family_runs_or_is_refused_for_a_true_reason(family: str) -> None:
    result = outcome(family)
    if family in UNPADDED:
        assert "its levels are" in result.reason or "but [8, 16, 32] are needed" in result.reason
    elif family in OTHER_STRIDES:
        assert "but [8, 16, 32] are needed" in result.reason
    elif family in FIXED_PATCHES:
        assert "timm cannot build its features with patch_size=" in result.reason
    else:
        assert result.option, result.reason
        assert result.strides[-3:] == (8, 16, 32)


@pytest.mark.slow
def test_the_page_names_options_and_reasons(tmp_path: Path) -> None:
    text = timm_families.main(str(tmp_path / "page.md"), ["resnet", "vision_transformer", "levit"])
    assert "2 run, 1 of them by `model/backbone=vit_pyramid`, and 1 are refused" in text
    assert "strides [16, 32, 64], but [8, 16, 32] are needed" in text
    assert (tmp_path / "page.md").read_text() == text
