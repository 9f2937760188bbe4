"""Properties that upsamplers have whatever their weights are: kernels, constant maps, symmetries, precision."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from fastfcn_pl.config import schema
from fastfcn_pl.core.types import UserError

FOLDER = schema.CONF_DIR / "model" / "neck" / "upsampler"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
LEARNED = [name for name in NAMES if name not in ("bilinear", "nearest")]
CHANNELS = 16
BORDER = 6
"""Fine pixels from the border that windows, convolutions and offsets of an operator may see."""
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    ("carafe", {"groups": 2, "encoder_dilation": 2}),
    ("dysample", {"style": "pl"}),
    ("dysample", {"dynamic_scope": True}),
    ("dysample", {"style": "pl", "dynamic_scope": True}),
    ("sapa", {"norm": "none"}),
    ("fade", {"gated": False}),
    ("fade", {"lite": True}),
]


def _upsampler(name: str, scale: int = 2, align_corners: bool = False, **keys: Any) -> nn.Module:
    """Return an upsampler with random weights, also where it would begin as a fixed one."""
    node = OmegaConf.merge(OmegaConf.load(FOLDER / f"{name}.yaml"), keys)
    torch.manual_seed(0)
    module: nn.Module = instantiate(node)(CHANNELS, align_corners, scale)
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight)
    return module


def _maps(*size: int, scale: int = 2) -> tuple[Tensor, Tensor]:
    """Return a random coarse map of the size, and the fine map of twice the size."""
    generator = torch.Generator().manual_seed(1)
    fine = [scale * length for length in size]
    return (
        torch.randn(2, CHANNELS, *size, generator=generator),
        torch.randn(2, CHANNELS, *fine, generator=generator),
    )


@pytest.mark.parametrize(("name", "keys"), VARIANTS)
@pytest.mark.parametrize("size", [(13, 17), (14, 17), (14, 18)])
def test_the_result_has_the_fine_size_and_is_a_part_of_the_doubled_map(
    name: str, keys: dict[str, Any], size: tuple[int, int]
) -> None:
    module, (coarse, fine) = _upsampler(name, **keys), _maps(7, 9)
    cut = fine[..., : size[0], : size[1]]
    result = module(coarse, cut)
    assert result.shape == cut.shape
    if name not in ("bilinear", "fade"):  # the one resizes, and the convolution of the other sees the border of `fine`
        torch.testing.assert_close(result, module(coarse, fine)[..., : size[0], : size[1]])


@pytest.mark.parametrize("name", ["carafe", "sapa", "fade"])
@pytest.mark.parametrize("scale", [2, 4])
def test_kernels_sum_to_one(name: str, scale: int) -> None:
    module, (coarse, fine) = _upsampler(name, scale), _maps(5, 6, scale=scale)
    kernels = module.kernels(coarse) if name == "carafe" else module.kernels(coarse, fine)
    assert kernels.shape == (2, 5, 6, 1, scale**2, 25)
    assert (kernels >= 0).all()
    torch.testing.assert_close(kernels.sum(-1), torch.ones(2, 5, 6, 1, scale**2))
    assert kernels.std(-1).min() > 1e-4, "kernels that are uniform would sum to one as well"


@pytest.mark.parametrize(("name", "keys"), VARIANTS)
def test_a_constant_map_stays_constant(name: str, keys: dict[str, Any]) -> None:
    """Away from the border: windows of CARAFE, SAPA and FADE lose the weights of pixels outside of the map."""
    constant = torch.linspace(0.5, 1.5, CHANNELS).view(1, CHANNELS, 1, 1)
    coarse, fine = constant.expand(2, -1, 11, 12), constant.expand(2, -1, 21, 24)
    module = _upsampler(name, **keys)
    result = module(coarse, fine)
    inner = slice(BORDER, -BORDER)
    torch.testing.assert_close(result[..., inner, inner], fine[..., inner, inner])
    darkened = (fine - result)[..., 0, 0] > 1e-5
    assert darkened.all() if name in ("carafe", "sapa", "fade") else not darkened.any()


@pytest.mark.parametrize("style", ["lp", "pl"])
@pytest.mark.parametrize("scale", [2, 4])
def test_dysample_without_offsets_is_bilinear_interpolation(style: str, scale: int) -> None:
    module, (coarse, fine) = _upsampler("dysample", scale, style=style), _maps(8, 12, scale=scale)
    nn.init.zeros_(module.offset.weight)
    nn.init.zeros_(module.offset.bias)
    torch.testing.assert_close(
        module(coarse, fine), F.interpolate(coarse, scale_factor=scale, mode="bilinear"), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize(("name", "keys"), VARIANTS)
def test_a_shift_by_a_coarse_pixel_shifts_the_result(name: str, keys: dict[str, Any]) -> None:
    module, (coarse, fine) = _upsampler(name, **keys), _maps(12, 13)
    expected = module(coarse, fine).roll((4, -2), (2, 3))
    actual = module(coarse.roll((2, -1), (2, 3)), fine.roll((4, -2), (2, 3)))
    inner = slice(BORDER + 4, -BORDER - 4)
    torch.testing.assert_close(actual[..., inner, inner], expected[..., inner, inner], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bilinear", "nearest", "sapa"])
@pytest.mark.parametrize("axis", [2, 3])
def test_a_flip_flips_the_result(name: str, axis: int) -> None:
    """Operators without a convolution have no direction."""
    module, (coarse, fine) = _upsampler(name), _maps(6, 7)
    torch.testing.assert_close(module(coarse.flip(axis), fine.flip(axis)), module(coarse, fine).flip(axis))


@pytest.mark.parametrize("name", ["sapa", "fade"])
def test_guided_operators_follow_the_fine_map(name: str) -> None:
    module, (coarse, fine) = _upsampler(name, **({"gated": False} if name == "fade" else {})), _maps(6, 7)
    assert (module(coarse, fine) - module(coarse, fine.flip(1))).abs().max() > 0.1


@pytest.mark.parametrize(("name", "keys"), VARIANTS)
def test_half_precision_is_as_good_as_its_digits(name: str, keys: dict[str, Any]) -> None:
    """A wide map: positions in bfloat16 would be off by a pixel."""
    module, (coarse, fine) = _upsampler(name, **keys), _maps(3, 400)
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            conv.weight.data *= 0.1
    expected = module(coarse, fine)
    with torch.autocast("cpu", torch.bfloat16):
        actual = module(coarse.bfloat16(), fine.bfloat16())
    assert (actual.float() - expected).abs().mean() < 0.02


@pytest.mark.parametrize("name", LEARNED)
def test_levels_of_one_stride_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"have the same stride: use model/neck/upsampler=bilinear, or model\.backbone"):
        _upsampler(name, scale=1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(_upsampler, "carafe", groups=3), r"model\.neck\.upsampler\.groups=3 does not divide the 16 channels"),
        (
            partial(_upsampler, "dysample", groups=3),
            r"model\.neck\.upsampler\.groups=3 does not divide the 16 channels",
        ),
        (partial(_upsampler, "sapa", norm="group"), r"model\.neck\.upsampler\.norm_groups=32 does not divide the 16"),
        (partial(_upsampler, "sapa", norm="batch"), r"model\.neck\.upsampler\.norm=batch: use layer, group or none"),
        (partial(_upsampler, "dysample", style="up"), r"model\.neck\.upsampler\.style=up: use lp or pl"),
        (partial(_upsampler, "dysample", 8, style="pl"), r"model\.neck\.width=16: use a multiple of 64 for DySample's"),
        (partial(_upsampler, "fade", kernel_size=4), r"model\.neck\.upsampler\.kernel_size=4: use an odd number"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(build: partial[nn.Module], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
