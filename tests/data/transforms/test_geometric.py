"""Geometric augmentation: plans are drawn as in the paper, and equal resizing the whole image first."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fastfcn_pl.core.types import IGNORE, Box, UserError
from fastfcn_pl.data.transforms.geometric import GeometricPlan, RandomFlip, RandomScaleCrop
from fastfcn_pl.data.transforms.image_ops import gaussian_blur, resize_region


def _augmentation(**changes: object) -> RandomScaleCrop:
    options = {"base_size": 52, "scale": [0.5, 2.0], "crop_size": 48, "rotation": 0, "flip_probability": 0.5}
    options |= {"blur_probability": 0.5, "blur_radius": 1.0, "fill": [0, 0, 0]}
    return RandomScaleCrop(**{**options, **changes})  # type: ignore[arg-type]


def _picture(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture with structure at all scales, and a mask."""
    rough = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = rng.integers(-30, 30, (size[1], size[0], 3))
    image = np.clip(np.asarray(rough) + noise, 0, 255).astype(np.uint8)
    return image, rng.integers(0, 12, (size[1], size[0]), dtype=np.uint8)


def _whole_first(plan: GeometricPlan, image: np.ndarray, resample: Image.Resampling, fill: int) -> np.ndarray:
    """Resize the whole image with Pillow, then crop, flip and pad: the reference of a plan."""
    pixels = np.asarray(Image.fromarray(image).resize(plan.scaled, resample))
    (left, top), (width, height) = plan.corner, plan.crop
    pixels = pixels[top : top + height, left : left + width]
    pixels = pixels[:, ::-1] if plan.flip else pixels
    padding = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    return np.pad(pixels, padding[: pixels.ndim], constant_values=fill)


@pytest.mark.parametrize("seed", range(40))
def test_a_plan_equals_resizing_the_whole_image_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, mask = _picture(rng, (int(rng.integers(20, 150)), int(rng.integers(20, 150))))
    plan = _augmentation().plan((image.shape[1], image.shape[0]), rng)
    expected = _whole_first(plan, image, Image.Resampling.BILINEAR, 0).astype(int)
    assert np.abs(plan.apply_to_image(image, (0, 0, 0)) - expected).max() <= 2
    np.testing.assert_array_equal(plan.apply_to_mask(mask), _whole_first(plan, mask, Image.Resampling.NEAREST, IGNORE))


@pytest.mark.parametrize("seed", range(4))
def test_any_region_of_black_and_white_noise_is_resized_as_pillow_does(seed: int) -> None:
    """Noise, so that a shift by 1/100 of a pixel shows; sizes of any ratio, regions at any border."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        (height, width), (right, bottom) = rng.integers(1, 140, 2), rng.integers(1, 200, 2)
        noise = rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * 255
        size = int(right + rng.integers(0, 60)), int(bottom + rng.integers(0, 60))
        left, top = rng.integers(0, right), rng.integers(0, bottom)
        whole = np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR)).astype(int)
        region = resize_region(noise, size, Box(left, top, right, bottom))
        assert np.abs(region - whole[top:bottom, left:right]).max() <= 2, (width, height, size)


def test_padding_is_at_the_right_and_bottom_even_when_flipped() -> None:
    image, mask = np.full((8, 10, 3), 255, np.uint8), np.zeros((8, 10), np.uint8)
    plan = GeometricPlan(scaled=(10, 8), corner=(0, 0), crop=(16, 12), flip=True)
    pixels, labels = plan.apply_to_image(image, (1, 2, 3)), plan.apply_to_mask(mask)
    assert (pixels[:8, :10] == 255).all()
    assert (labels[:8, :10] == 0).all()
    assert (pixels[8:] == (1, 2, 3)).all()
    assert (labels[:, 10:] == IGNORE).all()


def test_plans_are_distributed_as_in_the_paper() -> None:
    augmentation, rng = _augmentation(), np.random.default_rng(0)
    plans = [augmentation.plan((80, 60), rng) for _ in range(4000)]
    short = np.array([plan.scaled[1] for plan in plans])
    assert (short.min(), short.max()) == (26, 104)
    assert abs(short.mean() - 65) < 1.5
    assert abs(np.mean([plan.flip for plan in plans]) - 0.5) < 0.03
    ratios = np.array([plan.scaled[0] / plan.scaled[1] for plan in plans])
    assert np.abs(ratios - 80 / 60).max() < 0.05  # the aspect ratio is kept
    room = [(p.corner[0] / (p.scaled[0] - 48)) for p in plans if p.scaled[0] > 60]
    assert abs(np.mean(room) - 0.5) < 0.03
    assert (min(room), max(room)) == (0, 1)
    assert all(p.corner[1] == 0 for p in plans if p.scaled[1] <= 48)


def _ramps(size: tuple[int, int]) -> np.ndarray:
    """Return a picture whose pixels encode their place: red is the column, green the row."""
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return np.stack([columns, rows, 255 + 0 * rows], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("seed", range(20))
def test_rotation_takes_each_pixel_from_its_place(seed: int) -> None:
    """Expected places come from complex numbers: rotating back about the centre is a multiplication."""
    rng = np.random.default_rng(seed)
    augmentation = _augmentation(rotation=30, crop_size=[40, 56], base_size=None)
    image = _ramps((int(rng.integers(90, 200)), int(rng.integers(60, 200))))
    plan = augmentation.plan((image.shape[1], image.shape[0]), rng)
    pixels, rows = plan.apply_to_image(image, (0, 0, 0)), plan.apply_to_mask(image[..., 1])

    (left, top), (width, height) = plan.corner, plan.scaled
    x, y = np.meshgrid(np.arange(left, min(left + 56, width)) + 0.5, np.arange(top, min(top + 40, height)) + 0.5)
    x = x[:, ::-1] if plan.flip else x
    before = (x - width / 2 + 1j * (y - height / 2)) * np.exp(1j * np.deg2rad(plan.angle))
    column = (before.real / width + 0.5) * image.shape[1] - 0.5
    row = (before.imag / height + 0.5) * image.shape[0] - 0.5

    visible = (slice(0, x.shape[0]), slice(0, x.shape[1]))
    inner = (np.abs(before.real) < width / 2 - 2) & (np.abs(before.imag) < height / 2 - 2)
    assert inner.any()
    assert np.abs(pixels[visible][..., 0] - column)[inner].max() <= 1
    assert np.abs(pixels[visible][..., 1] - row)[inner].max() <= 1
    assert np.abs(rows[visible] - row)[inner].max() <= 0.51  # the nearest
    np.testing.assert_array_equal(pixels[..., 2] == 0, rows == IGNORE)  # filled and ignored are the same pixels


def test_rotation_without_scaling_equals_the_official_one() -> None:
    image, mask = _picture(np.random.default_rng(0), (80, 60))
    plan = GeometricPlan(scaled=(80, 60), corner=(7, 5), crop=(48, 48), flip=False, angle=9.0)
    box = (7, 5, 55, 53)
    expected = np.asarray(
        Image.fromarray(image).rotate(9, Image.Resampling.BILINEAR, fillcolor=(9, 8, 7)).crop(box)
    ).astype(int)
    assert np.abs(plan.apply_to_image(image, (9, 8, 7)) - expected).max() <= 1
    labels = np.asarray(Image.fromarray(mask).rotate(9, fillcolor=IGNORE).crop(box))
    assert (plan.apply_to_mask(mask) == labels).mean() > 0.99


def test_rotating_and_shrinking_a_fine_pattern_does_not_alias() -> None:
    board = np.repeat((np.indices((96, 96)).sum(axis=0) % 2 * 255)[..., None], 3, -1).astype(np.uint8)
    plan = GeometricPlan(scaled=(56, 56), corner=(16, 16), crop=(24, 24), flip=False, angle=8.0)
    assert plan.apply_to_image(board, (0, 0, 0)).std() < 5  # 40 without the box filter


def test_rotation_angles_are_uniform_up_to_the_limit() -> None:
    rng = np.random.default_rng(0)
    angles = np.array([_augmentation(rotation=10).plan((80, 60), rng).angle for _ in range(2000)])
    assert -10 <= angles.min() < -9.5
    assert 9.5 < angles.max() <= 10
    assert abs(angles.mean()) < 0.5


def test_blur_has_the_given_probability() -> None:
    image, mask = _picture(np.random.default_rng(0), (48, 48))
    still = {"base_size": None, "scale": [1, 1], "flip_probability": 0.0}
    augmentation, rng = _augmentation(**still), np.random.default_rng(1)
    changed = [not np.array_equal(augmentation(image, mask, rng)[0], image) for _ in range(400)]
    assert 0.4 < np.mean(changed) < 0.55  # the smallest radii change nothing


def test_blur_radius_is_uniform_up_to_the_limit() -> None:
    """A blurred step is the integral of a Gaussian, so its slope gives the radius."""
    step = np.zeros((32, 32, 3), np.uint8)
    step[:, 16:] = 250
    still = {"base_size": None, "scale": [1, 1], "crop_size": 32, "flip_probability": 0.0}
    augmentation = _augmentation(**still, blur_probability=1.0, blur_radius=2.0)
    rng, radii = np.random.default_rng(0), []
    for _ in range(600):
        profile = augmentation(step, step[..., 0], rng)[0][16, :, 0].astype(float) / 250
        where = np.arange(31) - 15
        density = np.diff(profile)
        radii.append(float(np.sqrt((density * where**2).sum() - (density * where).sum() ** 2)))
    share = np.histogram(radii, [0, 0.5, 1, 1.5, 2.1])[0] / len(radii)
    assert np.abs(share - 0.25).max() < 0.08, share


def test_blur_does_not_change_its_input() -> None:
    image = np.moveaxis(_picture(np.random.default_rng(0), (40, 30))[0].transpose(2, 0, 1).copy(), 0, -1)
    before = image.copy()
    assert not np.array_equal(gaussian_blur(image, 1.0), before)
    np.testing.assert_array_equal(image, before)


def _gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    expected = image.astype(float)
    for axis in (0, 1):
        around = np.pad(expected, [(5, 5) if axis == i else (0, 0) for i in range(3)], mode="edge")
        expected = np.lib.stride_tricks.sliding_window_view(around, 11, axis=axis) @ weights
    return expected


@pytest.mark.parametrize("sigma", [0.26, 0.3, 0.7, 1.0])
def test_blur_is_a_gaussian(sigma: float) -> None:
    image, _ = _picture(np.random.default_rng(0), (40, 30))
    assert np.abs(gaussian_blur(image, sigma) - _gaussian(image, sigma)).max() <= 2


def test_a_blur_too_small_to_change_anything_is_skipped() -> None:
    dots = np.zeros((9, 9, 3), np.uint8)
    dots[::2, ::2] = 255
    assert gaussian_blur(dots, 0.25) is dots
    np.testing.assert_array_equal(_gaussian(dots, 0.25).round(), dots)
    assert not np.array_equal(_gaussian(dots, 0.27).round(), dots)


def test_base_size_null_scales_by_the_images_own_size() -> None:
    plan = _augmentation(base_size=None, scale=[1, 1]).plan((70, 60), np.random.default_rng(0))
    assert plan.scaled == (70, 60)


def test_crop_size_is_height_then_width() -> None:
    image, mask = _picture(np.random.default_rng(0), (70, 60))
    pixels, labels = _augmentation(crop_size=[32, 40])(image, mask, np.random.default_rng(0))
    assert (pixels.shape, labels.shape) == ((32, 40, 3), (32, 40))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scale", [2, 1]),
        ("scale", [0, 1]),
        ("crop_size", [1, 2, 3]),
        ("crop_size", 0),
        ("rotation", -1),
        ("base_size", 0),
        ("flip_probability", 1.5),
        ("blur_probability", -0.1),
        ("blur_radius", -1),
        ("fill", [0, 0]),
        ("fill", [0, 0, 256]),
    ],
)
def test_invalid_options_are_refused(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"^data\.augmentation\.{key}="):
        _augmentation(**{key: value})
    if key == "flip_probability":
        with pytest.raises(UserError, match=r"^data\.augmentation\.probability=1\.5: give a probability, 0 to 1$"):
            RandomFlip(probability=1.5)
