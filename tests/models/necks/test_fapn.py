"""FaPN against the published one, and its deformable convolution against torchvision's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.necks.deform_conv import deform_conv
from fastfcn_pl.models.necks.fapn import DeformableConv, FaPN, FeatureAlignment
from tests.support import neck_parity


def _alignment_names(ours: str, theirs: str) -> dict[str, str]:
    return {
        f"{ours}selection.attention": f"{theirs}lateral_conv.conv_atten",
        f"{ours}selection.select": f"{theirs}lateral_conv.conv",
        f"{ours}offset": f"{theirs}offset",
        f"{ours}norm": f"{theirs}offset.norm",
        f"{ours}align": f"{theirs}dcpack_L2",
        f"{ours}align.offsets_and_mask": f"{theirs}dcpack_L2.conv_offset_mask",
    }


def test_the_alignment_is_the_published_one(shared: Path) -> None:
    case = neck_parity.cases(shared / "parity" / "necks" / "fapn.pt")["fam_no_norm"]
    module = FeatureAlignment(40, 32, 8, nn.Identity())
    assert sum(parameter.numel() for parameter in module.parameters()) == case["parameter_count"]
    neck_parity.check(module, case, _alignment_names("", ""))


class _AllLevels(nn.Module):
    """The neck with the maps of all levels, as the published one returns them."""

    def __init__(self, neck: FaPN, width: int, norm: bool) -> None:
        super().__init__()
        self.neck = neck
        norms = (nn.GroupNorm(32, width) if norm else nn.Identity() for _ in range(2))
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=not norm), layer) for layer in norms
        )

    def forward(self, *levels: Tensor) -> list[Tensor]:
        x = self.neck.top(levels[-1])
        maps, last = [x], [self.neck.smooth, *self.smooth]
        for i in (2, 1, 0):
            x = self.neck.alignments[i](levels[i], x)
            maps.insert(0, last[i](x))
        return maps


@pytest.mark.parametrize(("name", "width", "norm"), [("", 32, "none"), ("_GN", 64, "group")])
def test_the_pyramid_is_the_published_one(shared: Path, name: str, width: int, norm: str) -> None:
    cases = neck_parity.cases(shared / "parity" / "necks" / "fapn.pt")
    assert len(cases) == 3
    case = cases[f"pyramid_odd_97x129{name}"]
    info = FeatureInfo(tuple(case["hyper"]["in_channels"]), (4, 8, 16, 32))
    module = _AllLevels(
        FaPN(info, True, width=width, groups=8, norm=norm, norm_groups=32, output_level=2), width, norm == "group"
    )
    assert sum(parameter.numel() for parameter in module.parameters()) == case["parameter_count"]
    names = {"neck.top.0": "fan_align5", "neck.top.1": "fan_align5.norm"}
    for i, ours in enumerate(("neck.smooth", "smooth.0", "smooth.1")):
        names |= {f"{ours}.0": f"fpn_output{i + 2}", f"{ours}.1": f"fpn_output{i + 2}.norm"}
        names |= _alignment_names(f"neck.alignments.{i}.", f"fan_align{i + 2}.")
    neck_parity.check(module, case, names)


def test_the_deformable_convolution_is_that_of_torchvision() -> None:
    """Outputs and gradients, with displacements beyond the border, in float64."""
    torch.manual_seed(0)
    inputs = [
        torch.randn(2, 8, 6, 7),
        3 * torch.randn(2, 2 * 4 * 9, 6, 7),
        torch.rand(2, 4 * 9, 6, 7),
        torch.randn(5, 8, 3, 3),
        torch.randn(5),
    ]
    ours, theirs = ([x.double().requires_grad_() for x in inputs] for _ in range(2))
    result = deform_conv(*ours)
    x, offsets, mask, weight, bias = theirs
    expected = deform_conv2d(x, offsets, weight, bias, padding=1, mask=mask)
    torch.testing.assert_close(result, expected)
    for y in (result, expected):
        y.square().sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_at_first_nothing_is_displaced() -> None:
    conv, x = DeformableConv(8, 4), torch.randn(1, 8, 6, 7)
    half = nn.functional.conv2d(x, 0.5 * conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(x, torch.randn(1, 8, 6, 7)), half, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"width": 36, "groups": 8, "norm": "none"},
            "model.neck.groups=8 does not divide the 36 channels",
        ),
        ({"width": 16, "groups": 8, "norm": "group"}, "model.neck.norm_groups=32 does not divide the 16 channels"),
        ({"width": 32, "groups": 8, "norm": "batch"}, "model.neck.norm=batch: use group or none"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FaPN(FeatureInfo((8, 8, 8), (8, 16, 32)), True, norm_groups=32, output_level=3, **settings)  # type: ignore[arg-type]
