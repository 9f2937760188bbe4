"""Augmentation: the plan draws what the paper draws, and applying it equals resizing the whole image first."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fastfcn_pl.contracts import IGNORE, UserError
from fastfcn_pl.data.transforms import GeometricPlan, RandomScaleCrop


def _augmentation(**changes: object) -> RandomScaleCrop:
    options = {"base_size": 52, "scale": [0.5, 2.0], "crop_size": 48, "flip_probability": 0.5}
    options |= {"blur_probability": 0.5, "blur_radius": 1.0, "fill": [0, 0, 0]}
    return RandomScaleCrop(**{**options, **changes})  # type: ignore[arg-type]


def _picture(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """Return a picture with structure at all scales, and a mask."""
    rough = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = rng.integers(-30, 30, (size[1], size[0], 3))
    image = Image.fromarray(np.clip(np.asarray(rough) + noise, 0, 255).astype(np.uint8))
    return image, rng.integers(0, 12, (size[1], size[0]), dtype=np.uint8)


def _whole_first(plan: GeometricPlan, image: Image.Image, resample: Image.Resampling, fill: int) -> np.ndarray:
    """Resize all of the image, crop, flip, pad: what the plan has to equal."""
    pixels = np.asarray(image.resize(plan.scaled, resample))
    (left, top), (width, height) = plan.corner, plan.crop
    pixels = pixels[top : top + height, left : left + width]
    pixels = pixels[:, ::-1] if plan.flip else pixels
    padding = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    return np.pad(pixels, padding[: pixels.ndim], constant_values=fill)


@pytest.mark.parametrize("seed", range(40))
def test_a_plan_equals_resizing_the_whole_image_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, mask = _picture(rng, (int(rng.integers(20, 150)), int(rng.integers(20, 150))))
    plan = _augmentation().plan(image.size, rng)
    expected = _whole_first(plan, image, Image.Resampling.BILINEAR, 0).astype(int)
    assert np.abs(plan.image(image, (0, 0, 0)) - expected).max() <= 2
    expected = _whole_first(plan, Image.fromarray(mask), Image.Resampling.NEAREST, IGNORE)
    np.testing.assert_array_equal(plan.mask(mask), expected)


def test_padding_is_at_the_right_and_bottom_even_when_flipped() -> None:
    image, mask = Image.new("RGB", (10, 8), "white"), np.zeros((8, 10), np.uint8)
    plan = GeometricPlan(scaled=(10, 8), corner=(0, 0), crop=(16, 12), flip=True)
    pixels, labels = plan.image(image, (1, 2, 3)), plan.mask(mask)
    assert (pixels[:8, :10] == 255).all()
    assert (labels[:8, :10] == 0).all()
    assert (pixels[8:] == (1, 2, 3)).all()
    assert (labels[:, 10:] == IGNORE).all()


def test_plans_are_distributed_as_the_papers() -> None:
    augmentation, rng = _augmentation(), np.random.default_rng(0)
    plans = [augmentation.plan((80, 60), rng) for _ in range(4000)]
    short = np.array([plan.scaled[1] for plan in plans])
    assert (short.min(), short.max()) == (26, 104)
    assert abs(short.mean() - 65) < 1.5
    assert abs(np.mean([plan.flip for plan in plans]) - 0.5) < 0.03
    ratios = np.array([plan.scaled[0] / plan.scaled[1] for plan in plans])
    assert np.abs(ratios - 80 / 60).max() < 0.05  # the sides shrink and grow together
    room = [(p.corner[0] / (p.scaled[0] - 48)) for p in plans if p.scaled[0] > 60]
    assert abs(np.mean(room) - 0.5) < 0.03
    assert (min(room), max(room)) == (0, 1)
    assert all(p.corner[1] == 0 for p in plans if p.scaled[1] <= 48)


def test_blur_comes_as_often_as_asked() -> None:
    image, mask = _picture(np.random.default_rng(0), (48, 48))
    still = {"base_size": None, "scale": [1, 1], "flip_probability": 0.0}
    augmentation, rng = _augmentation(**still), np.random.default_rng(1)
    changed = [not np.array_equal(augmentation(image, mask, rng)[0], np.asarray(image)) for _ in range(400)]
    assert 0.4 < np.mean(changed) < 0.55  # the smallest radii change nothing


def test_base_size_null_scales_by_the_images_own_size() -> None:
    plan = _augmentation(base_size=None, scale=[1, 1]).plan((70, 60), np.random.default_rng(0))
    assert plan.scaled == (70, 60)


def test_crop_size_is_height_then_width() -> None:
    image, mask = _picture(np.random.default_rng(0), (70, 60))
    pixels, labels = _augmentation(crop_size=[32, 40])(image, mask, np.random.default_rng(0))
    assert (pixels.shape, labels.shape) == ((32, 40, 3), (32, 40))


@pytest.mark.parametrize("wrong", [{"scale": [2, 1]}, {"scale": [0, 1]}, {"crop_size": [1, 2, 3]}, {"crop_size": 0}])
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        _augmentation(**wrong)
