"""Augmentation of images with bands: each band as that of a grey image, and nothing that only RGB has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fastfcn_pl.core.types import IGNORE, Bands, UserError
from fastfcn_pl.data.transforms.geometric import RandomFlip, RandomResizeCrop, RandomScaleCrop
from fastfcn_pl.data.transforms.geometric_plan import GeometricPlan
from fastfcn_pl.data.transforms.image_ops import box_blur
from fastfcn_pl.data.transforms.photometric import PhotometricDistortion

MEAN, STD = (1000.0, 2000, 3000, 4000, 0.5), (100.0, 200, 300, 400, 0.1)
BANDS = Bands(((0, 1, 2, 3, 4),), (0, 1, 2), MEAN, STD)
MMSEG: dict[str, Any] = {"scale": [80, 60], "ratio_range": [0.5, 2.0], "crop_size": 64, "cat_max_ratio": 0.75}
MMSEG |= {"tries": 10, "flip_probability": 0.5, "fill": [124, 116, 104]}
PAPER: dict[str, Any] = {"base_size": 52, "scale": [0.5, 2.0], "crop_size": 48, "rotation": 10, "fill": [0, 0, 0]}
PAPER |= {"flip_probability": 0.5, "blur_probability": 0.5, "blur_radius": 1.0}


def _image(count: int = 5, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(6, 8, count)).astype(np.float32)
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(c)).resize(size[::-1])) for c in np.moveaxis(coarse, 2, 0)
    ]
    return (np.stack(planes, 2) * STD[:count] + MEAN[:count]).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 13])
@pytest.mark.parametrize("augmentation", [RandomScaleCrop(**PAPER), RandomResizeCrop(**MMSEG, photometric=None)])
def test_any_number_of_bands_keeps_its_shape_and_units(count: int, augmentation: Any) -> None:
    bands = Bands((tuple(range(count)),), (0,), (1000.0,) * count, (100.0,) * count)
    image = np.repeat(_image()[..., :1], count, 2)
    mask = np.random.default_rng(1).integers(0, 3, image.shape[:2], dtype=np.uint8)
    adapted = augmentation.for_bands(bands)
    for seed in range(12):
        pixels, labels = adapted(image, mask, np.random.default_rng(seed))
        assert pixels.dtype == np.float32
        assert pixels.shape == (*labels.shape, count)
        assert image.min() - 1 <= pixels.min() <= pixels.max() <= image.max() + 1
        assert np.ptp(pixels, axis=2).max() < 1e-3  # all bands are equal, and stay so
        padding = labels[-1] == IGNORE
        assert not padding.all() or np.array_equal(pixels[-1], np.full_like(pixels[-1], 1000))


@pytest.mark.parametrize("angle", [0.0, 8.0])
@pytest.mark.parametrize("scaled", [(120, 90), (40, 30)])
def test_bands_move_as_the_colours_of_a_photograph(scaled: tuple[int, int], angle: float) -> None:
    """Values of 0 to 255 as floats end where they end as bytes, apart from rounding."""
    levels = np.rint((_image(3) - MEAN[:3]) / STD[:3] * 30 + 128).clip(0, 255)
    plan = GeometricPlan(scaled, (3, 5), (32, 24), True, angle)
    floats = plan.apply_to_image(levels.astype(np.float32), [0.0] * 3)
    photograph = plan.apply_to_image(levels.astype(np.uint8), [0, 0, 0])
    difference = np.abs(floats - photograph)[1:-1, 1:-1]
    assert difference.max() <= 2
    assert difference.mean() < 0.6


def test_box_blur_is_an_average() -> None:
    channel = _image(1)[..., 0]
    expected = [channel[9:12, 19:22].mean(), channel[8:13, 18:23].mean()]
    assert [box_blur(channel, radius)[10, 20] for radius in (1, 2)] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "step",
    [
        v2.ColorJitter(brightness=(1.2, 1.2)),
        v2.ColorJitter(contrast=(1.3, 1.3)),
        v2.GaussianBlur(5, 1.0),
        v2.GaussianNoise(sigma=0.05),
        v2.RandomAdjustSharpness(2.0, p=1.0),
        v2.RandomAutocontrast(p=1.0),
        v2.RandomInvert(p=1.0),
        v2.RandomSolarize(0.5, p=1.0),
        v2.RandomApply([v2.GaussianNoise(sigma=0.05)], p=1.0),
    ],
    ids=lambda step: type(step).__name__,
)
def test_steps_of_grey_images_change_each_band_in_its_own_units(step: v2.Transform) -> None:
    image = _image()
    changed = RandomFlip(probability=0.0, color=[step]).for_bands(BANDS).color(image, np.random.default_rng(0))
    assert changed.dtype == np.float32
    relative = np.abs(changed - image).reshape(-1, 5).mean(0) / STD
    assert (relative > 0.005).all()
    assert (relative < 4).all()


def test_contrast_is_about_the_mean_of_a_band() -> None:
    image = _image()
    step = v2.ColorJitter(contrast=(1.5, 1.5))
    changed = RandomFlip(probability=0.0, color=[step]).for_bands(BANDS).color(image, np.random.default_rng(0))
    for c in range(5):
        centre = image[..., c].mean()
        inside = np.abs(image[..., c] - centre) < STD[c]  # no level is cut off
        assert changed[inside, c] == pytest.approx((1.5 * (image[inside, c] - centre) + centre), abs=0.01 * STD[c])


def test_a_step_that_does_not_act_changes_no_bit() -> None:
    image = _image()
    image[0, 0] = 1e6  # beyond the levels
    steps = RandomFlip(probability=0.0, color=[v2.RandomInvert(p=0.0)]).for_bands(BANDS).color
    assert np.array_equal(steps(image, np.random.default_rng(0)), image)


def test_draws_depend_on_the_generator_alone() -> None:
    steps = RandomFlip(probability=0.0, color=[v2.GaussianNoise(sigma=0.05)]).for_bands(BANDS).color
    state = torch.get_rng_state()
    first, second = (steps(_image(), np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (v2.ColorJitter(saturation=0.5), r"color\.0: ColorJitter with saturation or hue is for red, green and blue"),
        (v2.ColorJitter(hue=0.1), r"color\.0: ColorJitter with saturation or hue"),
        (v2.RandomGrayscale(), r"color\.0: RandomGrayscale is for red, green and blue, which data\.bands are not"),
        (
            v2.RandomApply([v2.RandomPhotometricDistort()]),
            r"color\.0\.transforms\.0: RandomPhotometricDistort is for red",
        ),
        (v2.RandomChannelPermutation(), r"RandomChannelPermutation is for red, green and blue"),
        (v2.RandomPosterize(4), r"RandomPosterize is for 8 bits, and images with data\.bands are floats: remove it"),
        (v2.RandomSolarize(192), r"color\.0: RandomSolarize fails .*: change or remove it"),
    ],
)
def test_steps_of_rgb_are_refused(step: v2.Transform, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RandomFlip(probability=0.5, color=[step]).for_bands(BANDS)


def test_the_distortion_of_mmseg_is_refused() -> None:
    distortion = PhotometricDistortion(brightness_delta=32, contrast=[0.5, 1.5], saturation=[0.5, 1.5], hue_delta=18)
    with pytest.raises(UserError, match=r"^data\.augmentation\.photometric changes hue .*: set it to null$"):
        RandomResizeCrop(**MMSEG, photometric=distortion).for_bands(BANDS)
