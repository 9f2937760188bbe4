"""Facts that hold for each of the published decoders that are necks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from fastfcn_pl.config import build
from fastfcn_pl.core.types import FeatureInfo, UserError
from fastfcn_pl.models.segmenter import Neck
from fastfcn_pl.tools.export import formats, writers
from tests.fakes.network import example_images

INFO = FeatureInfo((5, 2, 3, 4), (4, 8, 16, 32))
NECKS = ["segformer_mlp", "semantic_fpn", "pan", "uafm", "sfnet", "alignseg", "fapn"]
UPSAMPLERS = ["nearest", "carafe", "dysample", "sapa", "fade"]


def _neck(name: str, *overrides: str, info: FeatureInfo = INFO) -> Neck:
    cfg = build.compose([f"model/neck={name}", *overrides, "run_dir=."])
    return instantiate(cfg.model.neck, _convert_="all")(info, False)


@pytest.mark.parametrize(("output_level", "stride"), [(2, 4), (3, 8)])
@pytest.mark.parametrize("name", NECKS)
def test_its_map_has_the_size_and_the_channels_it_says(name: str, output_level: int, stride: int) -> None:
    """Sizes of a 97x129 image; the levels themselves are passed on."""
    neck = _neck(name, "model.neck.width=8", f"model.neck.output_level={output_level}")
    levels = [torch.randn(2, c, -(-97 // s), -(-129 // s)) for c, s in zip(INFO.channels, INFO.strides, strict=True)]
    *passed, fused = neck(levels)
    assert all(x is level for x, level in zip(passed, levels, strict=True))
    assert neck.out_info == INFO.append(fused.shape[1], stride)
    assert fused.shape == (2, neck.out_info.channels[-1], -(-97 // stride), -(-129 // stride))


@pytest.mark.parametrize(
    ("name", "overrides", "border"),
    [
        ("segformer_mlp", [], 0),  # no layer sees a neighbour
        ("semantic_fpn", [], 16),
        ("semantic_fpn", ["model.neck.norm=none"], 16),
        ("uafm", [], 32),
        ("uafm", ["model.neck.attention=channel"], 32),
        ("pan", [], 200),  # the attention's convolutions are 7x7, 5x5 and 3x3 at a half, a quarter, an eighth of C5
    ],
)
def test_a_constant_pyramid_gives_a_constant_map_inside(name: str, overrides: list[str], border: int) -> None:
    """Zero padding alone tells pixels apart, and changes a border."""
    torch.manual_seed(0)
    neck, side = _neck(name, "model.neck.width=8", *overrides).eval(), 2 * border + 32
    levels = [
        torch.rand(1, c, 1, 1).expand(-1, -1, 8 * side // s, 8 * side // s)
        for c, s in zip(INFO.channels, INFO.strides, strict=True)
    ]
    with torch.no_grad():
        fused = neck(levels)[-1]
    inside = fused[..., border : side - border, border : side - border]
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside))
    assert (border == 0) == bool(torch.allclose(fused, fused[..., :1, :1]))


@pytest.mark.parametrize("name", NECKS)
def test_levels_that_do_not_double_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"joins levels of strides \(8, 16, 32\)"):
        _neck(name, info=FeatureInfo((8, 8, 8), (8, 8, 8)))


class _ScoresOfImage(nn.Module):
    """A neck's map, on levels that strided convolutions make of an image `(B, 3, H, W)` uint8."""

    def __init__(self, neck: Neck) -> None:
        super().__init__()
        pairs = pairwise((3, 3, *INFO.channels))
        self.convs = nn.ModuleList(nn.Conv2d(first, second, 3, stride=2, padding=1) for first, second in pairs)
        self.neck = neck

    def forward(self, images: Tensor) -> Tensor:
        x, levels = images / 255, []
        for conv in self.convs:
            x = conv(x)
            levels.append(x)
        return self.neck(levels[1:])[-1]


@pytest.mark.parametrize(
    "overrides",
    [
        # torch.export takes the one pixel of its attention's maps in the example for a constant.
        pytest.param(["model/neck=pan"], marks=[pytest.mark.exhaustive, pytest.mark.xfail(strict=True)]),
        *(
            pytest.param(overrides, marks=pytest.mark.exhaustive)
            for overrides in (
                *([f"model/neck={name}"] for name in [*NECKS, "bilinear", "fpn", "jpu", "jpu_x"] if name != "pan"),
                *(["model/neck=fpn", f"model/neck/upsampler={name}"] for name in UPSAMPLERS),
                ["model/neck=uafm", "model.neck.attention=channel"],
                ["model/neck=sfnet", "model.neck.alignment=pooled"],
            )
        ),
    ],
    ids=" ".join,
)
def test_one_exported_file_gives_equal_labels_at_any_size(overrides: list[str], tmp_path: Path) -> None:
    """Weights are random also where predicted offsets begin with zeros."""
    torch.manual_seed(0)
    groups = ["model.neck.groups=4"] if overrides[0].endswith("jpu_x") else []
    network = _ScoresOfImage(_neck(overrides[0].partition("=")[2], *overrides[1:], *groups)).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    writers.write(network, "torch_export", tmp_path / "network.pt2", example_images())
    run = formats.runner(tmp_path / "network.pt2")
    for size in ((2, 3, 97, 129), (1, 3, 160, 64), (1, 3, 280, 300)):
        images = torch.randint(0, 256, size, dtype=torch.uint8)
        with torch.no_grad():
            expected = network(images).argmax(1)
        assert (run(images).argmax(1) == expected).double().mean() >= 0.999
