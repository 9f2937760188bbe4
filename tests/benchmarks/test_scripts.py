"""Benchmarks keep running: their figures are for the pages in `experiments/speed/`, not for tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb
from omegaconf import DictConfig

from fastfcn_pl.ops import fast_paths as ops_fast_paths
from fastfcn_pl.tools.train import train
from tests.benchmarks import (
    ablation,
    data,
    fast_paths,
    inference,
    loop,
    loss,
    memory,
    precision,
    scoring,
    startup,
    training,
)
from tests.benchmarks.report import report
from tests.conftest import TINY
from tests.fakes.camvid import write_camvid

REFERENCE = """
class BaseDataset:
    def __init__(self, root, split):
        pass

    def _sync_transform(self, image, mask):
        return image, mask
"""


@pytest.mark.slow
def test_reading_and_augmentation_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "encoding" / "datasets").mkdir(parents=True)
    (tmp_path / "encoding" / "datasets" / "base.py").write_text(REFERENCE)
    monkeypatch.setenv("REFERENCE", str(tmp_path))
    monkeypatch.delenv("FASTFCN_SHARED", raising=False)
    data.main(str(tmp_path / "speed.md"), count=1, epochs=1)
    rows = (tmp_path / "speed.md").read_text().splitlines()
    names = ("Pillow", "published class", "ours, data/augmentation=paper", "ours, data/augmentation=mmseg")
    assert all(any(row.startswith(f"| {name}") for row in rows) for name in names)


def test_every_switch_of_a_fast_path_finds_what_it_switches() -> None:
    disabled = set[str]()
    for path in fast_paths.ALL:
        with path.off():
            disabled |= ops_fast_paths._disabled
    assert disabled == set(ops_fast_paths.FAST_PATHS)
    assert not ops_fast_paths._disabled


@pytest.mark.exhaustive
def test_the_gain_of_a_fast_path_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = ablation.trials()[0]
    monkeypatch.setattr(ablation, "trials", lambda: [trial])
    ablation.main(str(tmp_path / "ablation.md"), seconds=0)
    rows = [
        row for row in (tmp_path / "ablation.md").read_text().splitlines() if row.startswith(f"| {trial.path.name}")
    ]
    assert [len(_cells(row)) for row in rows] == [4, 10]


def test_scoring_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFERENCE", raising=False)
    text = scoring.main(classes=5, size=(40, 50), rounds=1)
    assert "another cell than that of the plain argmax: 0 of " in text
    assert "pixel accuracy: equal to theirs" in text


@pytest.mark.exhaustive
def test_the_loss_is_measured(tmp_path: Path) -> None:
    loss.main(str(tmp_path / "speed.md"), classes=20, size=160, rounds=1)
    plain, ours = [
        _cells(row) for row in (tmp_path / "speed.md").read_text().splitlines() if row.startswith(("| F", "| b"))
    ]
    assert float(ours[3]) < float(plain[3])  # MiB


@pytest.mark.exhaustive
def test_the_training_step_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "STEPS", {"ours": training.ours})
    assert float(_cells(training.main(size=64, rounds=1).splitlines()[4])[1]) > 0
    monkeypatch.setattr(memory, "STEPS", training.STEPS)
    mib = float(_cells(memory.main(size=64, processes=1).splitlines()[4])[1])
    assert mib > 3 * 45e6 * 4 / 2**20  # weights, gradients, momentum


@pytest.mark.exhaustive
def test_the_loop_is_measured(tmp_path: Path) -> None:
    """The work that both share is most of a step, even of a small network."""
    root = write_camvid(tmp_path / "CamVid", train=16, val=2)
    text = loop.main(rounds=1, steps=8, root=root, overrides=["data.augmentation.crop_size=[96,96]"])
    wandb.teardown()  # its service, which the environment would name to later commands
    bare = _cells(next(line for line in text.splitlines() if line.startswith("| bare")))
    assert 0 < float(bare[2]) < 0.2 * float(bare[1])


@pytest.mark.exhaustive
def test_the_start_is_measured() -> None:
    text = startup.main(rounds=1)
    assert (text.count("fastfcn_pl.train"), text.count("fastfcn_pl.predict")) == (2, 1)


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.exhaustive
def test_labels_in_bfloat16_are_compared(tmp_path: Path, make_config: Callable[..., DictConfig]) -> None:
    small = ["data=shapes", "data.train_images=4", "data.val_images=2", "data.size=64", "data.num_workers=0"]
    train(make_config(*TINY, *small, "data.batch_size=2", "trainer.max_steps=1", "callbacks.cost.repeats=0"))
    text = precision.main(str(tmp_path / "run" / "checkpoints" / "last.ckpt"), str(tmp_path / "speed.md"))
    assert "2 images of shapes val" in text
    assert 50 < float(text.splitlines()[-1].partition(" %")[0]) <= 100


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", inference.PARTS)
def test_inference_is_measured(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if part == "published" and "REFERENCE" not in os.environ:
        pytest.skip("REFERENCE is not set: no checkout of the published code")
    monkeypatch.setattr(inference, "SIZE", (65, 97))
    monkeypatch.setattr(inference, "THREADS", 1)
    inference.main(str(tmp_path / "speed.md"), part, rounds=1, names="encnet_r50")
    assert f"## {inference.PARTS[part]}" in (tmp_path / "speed.md").read_text()


def test_a_section_replaces_itself_alone(tmp_path: Path) -> None:
    file = tmp_path / "speed.md"
    for title, text in (("One", "old"), ("Two", "kept"), ("One", "new")):
        report(file, title, "command", text)
    content = file.read_text()
    assert [word in content for word in ("old", "kept", "new")] == [False, True, True]
    assert content.count("## One") == 1
