"""Weights of classes by name: from the masks, or the data set's own. Studies take another data set."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.data.class_frequencies import balanced, median_frequency
from fastfcn_pl.data.datasets.camvid import CLASSES, CamVid
from fastfcn_pl.engine import class_weights
from tests.conftest import TINY, composed

PIXELS = np.array([[60, 40, 0, 0], [90, 0, 10, 0], [100, 0, 0, 0]])


def test_balanced_weights_give_each_class_the_same_sum() -> None:
    weights = np.array(balanced(PIXELS))
    assert weights[3] == 1
    np.testing.assert_allclose((weights * PIXELS.sum(0))[:3], 100, rtol=1e-5)  # 300 pixels of 3 classes


def test_median_frequency_counts_only_images_with_the_class() -> None:
    frequency = [250 / 300, 40 / 100, 10 / 100]
    np.testing.assert_allclose(median_frequency(PIXELS), [0.4 / f for f in frequency] + [1], rtol=1e-5)


class _Data:
    """A data set with the masks of `PIXELS`."""

    train_split, class_weights = "train", (4, 3, 2, 1)
    spec = DatasetSpec("four", tuple("abcd"), ((0, 0, 0),) * 4)

    def dataset(self, split: str) -> list[int]:
        assert split == "train"
        return [0, 1, 2]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def count(dataset: list[int], indices: range) -> dict[int, np.ndarray]:
        calls.append(len(dataset))
        return {i: PIXELS[i] for i in indices}

    monkeypatch.setattr(class_weights, "count_pixels", count)
    return calls


def test_names_become_numbers_and_masks_are_counted_once(
    counted: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    key = "loss.terms.{}.loss.class_weights={}"
    cfg = composed(key.format("cross_entropy", "balanced"), key.format("aux_cross_entropy", "median_frequency"))
    class_weights.resolve(cfg, _Data())  # type: ignore[arg-type]
    assert list(cfg.loss.terms.cross_entropy.loss.class_weights) == balanced(PIXELS)
    assert list(cfg.loss.terms.aux_cross_entropy.loss.class_weights) == median_frequency(PIXELS)
    assert counted == [3]
    before = cfg.copy()
    class_weights.resolve(cfg, _Data())  # type: ignore[arg-type]
    assert cfg == before
    assert "loss.terms.cross_entropy.loss.class_weights: a 0.400, b 2.50, c 10.0, d 1.00\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("balance", "class_weights=balance: give a number for each class, null, or a name; did you mean balanced"),
        ("[1,2]", "class_weights has 2 numbers, but four has 4 classes: give one for each, or .*=balanced or median"),
    ],
)
def test_what_does_not_fit_is_refused(value: str, line: str) -> None:
    cfg = composed(f"loss.terms.cross_entropy.loss.class_weights={value}")
    with pytest.raises(UserError, match=rf"^loss\.terms\.cross_entropy\.loss\.{line}"):
        class_weights.resolve(cfg, _Data())  # type: ignore[arg-type]


@pytest.mark.slow
def test_camvid_brings_its_own(counted: list[int]) -> None:
    assert len(CamVid.class_weights) == len(CLASSES)
    assert composed(name="camvid").loss.terms.cross_entropy.loss.class_weights == "data"
    cfg = composed("loss.terms.cross_entropy.loss.class_weights=data")
    class_weights.resolve(cfg, _Data())  # type: ignore[arg-type]
    assert list(cfg.loss.terms.cross_entropy.loss.class_weights) == [4, 3, 2, 1]
    assert counted == []


def _write_pets(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "masks"):
            (root / "pets" / kind / split).mkdir(parents=True)
        for i in range(count):
            mask = np.zeros((48, 64), np.uint8)
            mask[8:40, 8 + i : 30 + i] = 1 + i % 2
            image = rng.integers(0, 80, (48, 64, 3)) + 80 * mask[..., None]
            Image.fromarray(image.astype(np.uint8)).save(root / "pets" / "images" / split / f"{i}.png")
            Image.fromarray(mask).save(root / "pets" / "masks" / split / f"{i}.png")
    (root / "my_conf" / "data").mkdir(parents=True)
    (root / "my_conf" / "data" / "pets.yaml").write_text(
        "defaults: [folder, _self_]\nname: pets\nroot: pets\nclasses: [background, cat, dog]\n"
        "batch_size: 2\nnum_workers: 0\naugmentation: {base_size: 48, crop_size: 48}\nclass_weights: [1, 2, 3]\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("study", ["quickstart", "camvid"])
def test_a_study_takes_other_data(
    study: str, command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    _write_pets(tmp_path)
    weights = ["loss.terms.aux_cross_entropy.loss.class_weights=balanced"]
    arguments = ["-cn", study, "data=pets", *TINY, "trainer.max_epochs=1", "callbacks.cost.repeats=0", *weights]
    done = command("train", *arguments, "-cd", "my_conf", "trainer.check_val_every_n_epoch=1")
    assert done.returncode == 0, done.stderr
    assert "train: counting the classes of 4 masks for class_weights=balanced\n" in done.stdout
    (last,) = tmp_path.glob(f"runs/{study}/*/checkpoints/last.ckpt")
    config: DictConfig = torch.load(last, weights_only=True)["hyper_parameters"]["config"]
    terms = config["loss"]["terms"]
    assert terms["cross_entropy"]["loss"]["class_weights"] == ([1, 2, 3] if study == "camvid" else None)
    assert len(terms["aux_cross_entropy"]["loss"]["class_weights"]) == 3
