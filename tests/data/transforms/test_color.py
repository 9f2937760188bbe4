"""Colour steps: torchvision's transforms change visible pixels only, as a function of (seed, epoch, index)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torchvision import transforms as v1
from torchvision import tv_tensors
from torchvision.transforms import v2

from fastfcn_pl import Predictor
from fastfcn_pl.config import build, schema, validation
from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.data.datasets.camvid import CamVid
from fastfcn_pl.data.transforms import color
from fastfcn_pl.data.transforms.color import ColorSteps
from fastfcn_pl.engine.resume import StoppedRun
from fastfcn_pl.tools.train import train
from tests.conftest import TINY, composed
from tests.fakes.camvid import write_camvid

AUGMENTATIONS = sorted(path.stem for path in (schema.CONF_DIR / "data" / "augmentation").glob("*.yaml"))
V2 = "torchvision.transforms.v2"
STRONG = "data/augmentation/color=strong"
VALUES: dict[type[v2.Transform], dict[str, Any]] = {
    v2.ColorJitter: {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.2},
    v2.GaussianBlur: {"kernel_size": 5},
    v2.Grayscale: {"num_output_channels": 3},
    v2.RandomAdjustSharpness: {"sharpness_factor": 2.0, "p": 1.0},
    v2.RandomPhotometricDistort: {"p": 1.0},
    v2.RandomPosterize: {"bits": 2, "p": 1.0},
    v2.RandomSolarize: {"threshold": 99, "p": 1.0},
    **{kind: {"p": 1.0} for kind in (v2.RandomAutocontrast, v2.RandomEqualize, v2.RandomGrayscale, v2.RandomInvert)},
}


def _config(*overrides: str, **values: Any) -> DictConfig:
    """Return a composed augmentation with those of `values` whose keys it has."""
    cfg = composed("data=ade20k", *overrides, "run_dir=run")
    cfg.data.augmentation.update({key: value for key, value in values.items() if key in cfg.data.augmentation})
    validation.check(cfg)
    return cfg.data.augmentation


def _pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    height, width = 30 + 20 * seed, 90 - 10 * seed
    return rng.integers(0, 256, (height, width, 3), np.uint8), rng.integers(0, 9, (height, width), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_only_visible_pixels_change_and_only_at_the_end(name: str) -> None:
    """Inverted colours show that size, crop, flip, blur and `photometric` are drawn as without colour steps."""
    cfg = _config(f"data/augmentation={name}", crop_size=64, base_size=64, rotation=0)
    if name == "mmseg":
        cfg.scale = [80, 60]
    plain = build.build(cfg)
    cfg.color = [{"_target_": f"{V2}.RandomInvert", "p": 1}]
    inverted, padded = build.build(cfg), False
    for seed in range(6):
        image, mask = _pair(seed)
        before, labels = plain(image, mask, np.random.default_rng((5, seed)))
        after, same = inverted(image, mask, np.random.default_rng((5, seed)))
        assert np.array_equal(labels, same)
        rows, columns = (~(labels == IGNORE).all(axis) for axis in (1, 0))
        changed = rows[:, None] & columns
        assert np.array_equal(after, np.where(changed[..., None], 255 - before, before))
        padded |= not changed.all()
    assert padded or name == "flip"


def test_without_steps_nothing_is_drawn_or_copied() -> None:
    image, rng = _pair(0)[0], np.random.default_rng(3)
    assert ColorSteps([])(image, rng) is image
    assert rng.random() == np.random.default_rng(3).random()


@pytest.mark.slow
def test_samples_depend_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    root = write_camvid(tmp_path, train=6)
    cfg = _config("data/augmentation=camvid", STRONG, crop_size=32)

    def module(seed: int, workers: int) -> CamVid:
        options = {"root": str(root), "train_split": "train", "batch_size": 2, "num_workers": workers}
        return CamVid(seed, **options, augmentation=build.build(cfg))

    def batches(seed: int, workers: int) -> dict[tuple[int, int], torch.Tensor]:
        loader, samples = module(seed, workers).train_dataloader(), {}
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            for batch in loader:
                samples |= {(epoch, int(i)): image for i, image in zip(batch["index"], batch["image"], strict=True)}
        return samples

    alone, shared, other = batches(5, workers=0), batches(5, workers=2), batches(6, workers=0)
    assert len(alone) == 12
    assert all(torch.equal(alone[key], shared[key]) for key in alone)
    assert not any(torch.equal(alone[key], other[key]) for key in alone)
    assert not any(torch.equal(alone[0, index], alone[1, index]) for index in range(6))
    dataset, keys = module(5, 0).dataset("train", augment=True), list(alone)
    random.Random(0).shuffle(keys)
    torch.manual_seed(9)  # as a run that resumes, with another state and in another order
    assert all(torch.equal(dataset[key]["image"], alone[key]) for key in keys)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_torchs_generator_and_threads_stay_as_they_are(threads: None) -> None:
    torch.set_num_threads(3)
    before = torch.get_rng_state()
    augmentation = build.build(_config("data/augmentation=cityscapes", STRONG, crop_size=48))
    for seed in range(4):
        augmentation(*_pair(seed), np.random.default_rng(seed))
    with pytest.raises(UserError, match="fails for an image of 4x3"):
        ColorSteps([v2.GaussianBlur(9)])(np.zeros((3, 4, 3), np.uint8), np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("kind", color._COLOR)
def test_an_admitted_transform_changes_images_but_no_mask(kind: type[v2.Transform]) -> None:
    step = kind(**VALUES.get(kind, {}))
    image, mask = (torch.from_numpy(array // 2) for array in _pair(1))
    torch.manual_seed(0)
    changed, same = step(tv_tensors.Image(image.movedim(-1, 0)), tv_tensors.Mask(mask))
    assert torch.equal(same, mask)
    assert not torch.equal(changed.movedim(0, -1), image)
    again = ColorSteps([step])(image.numpy(), np.random.default_rng(0))
    assert (again.shape, again.dtype) == (image.shape, np.uint8)


OTHERS = [
    kind
    for kind in vars(v2).values()
    if isinstance(kind, type) and issubclass(kind, v2.Transform) and kind not in (*color._COLOR, *color._CONTAINERS)
]


@pytest.mark.parametrize("kind", [*OTHERS, v1.ColorJitter, dict, type(None)])
def test_any_other_class_is_refused(kind: type) -> None:
    other = kind.__new__(kind)
    line = rf"^data\.augmentation\.color\.{{}}: {kind.__name__} is none of .*: use ColorJitter, .*; other keys of .*$"
    with pytest.raises(UserError, match=line.format("1")):
        ColorSteps([v2.ColorJitter(), other])
    with pytest.raises(UserError, match=line.format(r"0\.transforms\.1\.transforms\.0")):
        ColorSteps([v2.RandomApply([v2.ColorJitter(), v2.Compose([other])])])


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (v2.Grayscale(), r"Grayscale makes torch\.uint8 \(1, 64, 64\) of torch\.uint8 \(3, 64, 64\)"),
        (v2.RandomPosterize(9, p=0.0), "RandomPosterize fails .*bits must be"),
        (v2.RandomSolarize(300.0, p=0.01), "RandomSolarize fails .*[Tt]hreshold"),
        (v2.RandomAdjustSharpness(-1.0), "RandomAdjustSharpness fails .*not non-negative"),
        (v2.GaussianNoise(sigma=-1.0), "GaussianNoise fails .*sigma"),
    ],
)
def test_values_that_would_fail_later_are_refused(step: v2.Transform, words: str) -> None:
    with pytest.raises(UserError, match=rf"^data\.augmentation\.color\.0\.transforms\.0: {words}"):
        ColorSteps([v2.RandomChoice([step])])


@pytest.mark.parametrize("value", [None, 3, "jitter"])
def test_what_is_no_list_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^data\.augmentation\.color=.*: give a list of transforms, \[\] for none$"):
        ColorSteps(value)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"_target_": f"{V2}.ColorJitter", "huee": 0.1}, r"huee: .* has no such parameter; did you mean hue"),
        ({"_target_": f"{V2}.ColorJiter"}, r"_target_=.*ColorJiter cannot be imported"),
        ({"_target_": f"{V2}.RandomInvert", "p": "x"}, "p=x: use a number"),
    ],
)
def test_a_typo_in_a_step_is_named(step: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=rf"^data\.augmentation\.color\.0\.{words}"):
        _config(color=[step])
    nested = {"_target_": f"{V2}.RandomApply", "transforms": [step]}
    with pytest.raises(UserError, match=rf"^data\.augmentation\.color\.0\.transforms\.0\.{words}"):
        _config(color=[nested])


@pytest.mark.slow
def test_a_run_with_colours_trains_predicts_and_resumes(
    make_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [*TINY, "data.train_images=4", "data.val_images=1", "data.size=64", "data.batch_size=2"]
    short += ["data.num_workers=0", "callbacks.cost.repeats=0", "trainer.max_epochs=1"]
    train(make_config(*short, STRONG))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert Predictor(last, "cpu")(_pair(2)[0]).shape == _pair(2)[0].shape[:2]
    stopped = StoppedRun.read(make_config(*short, "resume=last"))
    color = _config(STRONG).color
    assert stopped.config(make_config(*short), []).data.augmentation.color == color
    changes = [STRONG, "data.augmentation.color.0.p=0.25"]
    cfg = stopped.config(make_config(*short, *changes), changes)
    color[0].p = 0.25
    assert cfg.data.augmentation.color == color
    steps = list(build.datamodule(cfg).augmentation.color.steps.values())
    assert [type(step) for step in steps] == [v2.RandomApply, v2.RandomGrayscale, v2.RandomApply, v2.RandomApply]
    assert steps[0].p == 0.25
