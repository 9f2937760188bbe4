"""mmsegmentation's augmentation: sizes, crops and colours are distributed as in its code."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.data.transforms.geometric import RandomResizeCrop
from fastfcn_pl.data.transforms.photometric import PhotometricDistortion


def _augmentation(**changes: object) -> RandomResizeCrop:
    options = {"scale": [204, 51], "ratio_range": [0.5, 2.0], "crop_size": 48, "cat_max_ratio": 0.75, "tries": 10}
    options |= {"flip_probability": 0.5, "photometric": None, "fill": [124, 116, 104]}
    return RandomResizeCrop(**{**options, **changes})  # type: ignore[arg-type]


def _distortion(**changes: object) -> PhotometricDistortion:
    options = {"brightness_delta": 0, "contrast": [1, 1], "saturation": [1, 1], "hue_delta": 0}
    return PhotometricDistortion(**{**options, **changes})  # type: ignore[arg-type]


def _grey(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, np.uint8)


def test_the_short_side_is_uniform_between_half_and_twice_the_scales() -> None:
    rng, augmentation = np.random.default_rng(0), _augmentation()
    sizes = np.array([augmentation.draw_size((80, 60), rng) for _ in range(4000)])
    assert (sizes[:, 1].min(), sizes[:, 1].max()) == (25, 101)
    assert abs(sizes[:, 1].mean() - 51 * 1.25) < 1
    assert np.abs(sizes[:, 0] / sizes[:, 1] - 80 / 60).max() < 0.04


def test_the_long_side_of_a_panorama_stays_within_the_scales() -> None:
    width, height = _augmentation(ratio_range=[1, 1]).draw_size((1000, 100), np.random.default_rng(0))
    assert (width, height) == (204, 20)


def _crops(cat_max_ratio: float, tries: int) -> list[np.ndarray]:
    """Return label crops of a picture whose left nine tenths are one class."""
    mask = np.zeros((100, 400), np.uint8)
    mask[:, 360:] = 1
    mask[:20] = IGNORE
    image, rng = np.zeros((100, 400, 3), np.uint8), np.random.default_rng(0)
    augmentation = _augmentation(
        scale=[400, 100], ratio_range=[1, 1], crop_size=50, cat_max_ratio=cat_max_ratio, tries=tries
    )
    return [augmentation(image, mask, rng)[1] for _ in range(400)]


def _varied(crop: np.ndarray) -> bool:
    shares = np.bincount(crop[crop != IGNORE], minlength=2) / (crop != IGNORE).sum()
    return bool(shares.min() > 0 and shares.max() < 0.75)


@pytest.mark.slow
def test_crops_filled_by_one_class_are_redrawn_up_to_ten_times() -> None:
    """A corner is 0 to 350; from 323 to 347 both classes have more than a quarter of the crop."""
    single = np.mean([_varied(crop) for crop in _crops(cat_max_ratio=1.0, tries=10)])
    assert abs(single - 25 / 351) < 0.04
    best_of_eleven = np.mean([_varied(crop) for crop in _crops(cat_max_ratio=0.75, tries=10)])
    assert abs(best_of_eleven - (1 - (1 - 25 / 351) ** 11)) < 0.08


def test_padding_keeps_the_mean_colour_and_is_ignored() -> None:
    distortion = _distortion(brightness_delta=200)
    augmentation = _augmentation(ratio_range=[0.5, 0.5], photometric=distortion)
    for seed in range(8):
        pixels, labels = augmentation(_grey(9), np.zeros((4, 4), np.uint8), np.random.default_rng(seed))
        assert (pixels.shape, labels.shape) == ((48, 48, 3), (48, 48))
        assert (pixels[25:] == (124, 116, 104)).all()
        assert (labels[25:] == IGNORE).all()
        assert (labels[:25, :25] == 0).all()


def test_each_change_has_probability_one_half_and_a_uniform_amount() -> None:
    rng = np.random.default_rng(0)
    for options, level, low, high in (
        ({"brightness_delta": 32}, 100, 68, 132),
        ({"contrast": [0.5, 1.5]}, 100, 50, 150),
    ):
        distortion = _distortion(**options)
        levels = np.array([int(distortion(_grey(level), rng)[0, 0, 0]) for _ in range(3000)])
        changed = levels[levels != level]
        assert abs(len(changed) / 3000 - 0.5) < 0.05
        assert (low <= changed.min() < low + 3, high - 3 < changed.max() <= high) == (True, True)
        assert abs(changed.mean() - level) < 2


def test_contrast_comes_before_or_after_saturation() -> None:
    """Contrast clips at white, so its order with saturation makes a difference."""
    colour = np.full((2, 2, 3), (200, 150, 150), np.uint8)
    distortion, rng = _distortion(contrast=[1.5, 1.5], saturation=[1.5, 1.5]), np.random.default_rng(0)
    outcomes = {tuple(distortion(colour, rng)[0, 0].tolist()) for _ in range(200)}
    assert len(outcomes) == 5  # none, contrast, saturation, both in either order


def test_hue_shifts_and_saturation_scales_within_their_limits() -> None:
    rng = np.random.default_rng(0)
    colour = np.full((2, 2, 3), (180, 120, 60), np.uint8)
    hues, saturations = set(), []
    for _ in range(1500):
        shifted = _distortion(hue_delta=18)(colour, rng)[0, 0] / 255
        hues.add((round(colorsys.rgb_to_hsv(*shifted)[0] * 180) - 15 + 90) % 180 - 90)
        faded = _distortion(saturation=[0.5, 1.5])(colour, rng)[0, 0] / 255
        saturations.append(colorsys.rgb_to_hsv(*faded)[1] / (2 / 3))
    assert (min(hues), max(hues), len(hues)) == (-18, 17, 36)  # the last step is missing in mmsegmentation, too
    assert min(saturations) == pytest.approx(0.5, abs=0.03)
    assert max(saturations) == pytest.approx(1.5, abs=0.03)


def test_colours_depend_on_the_generator_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    distortion = _distortion(brightness_delta=32, contrast=[0.5, 1.5], saturation=[0.5, 1.5], hue_delta=18)
    first, again, other = (distortion(image, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": [0, 5]},
        {"ratio_range": [2, 1]},
        {"crop_size": 0},
        {"flip_probability": 2},
        {"cat_max_ratio": 0},
        {"tries": -1},
    ],
)
def test_invalid_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        _augmentation(**wrong)


def test_invalid_colour_options_are_refused() -> None:
    with pytest.raises(UserError, match="contrast"):
        _distortion(contrast=[2, 1])
