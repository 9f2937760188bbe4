"""Progress output on a terminal and in a file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fastfcn_pl.training.callbacks.progress_bar import Bar, Lines, fitting, progress
from tests.conftest import TINY
from tests.fakes.camvid import write_camvid

Command = Callable[..., subprocess.CompletedProcess[str]]
OPTIONS = [*TINY, "data=camvid", "data.root=CamVid", "data.batch_size=2", "data.num_workers=0", "trainer.max_epochs=2"]
OPTIONS += ["data.augmentation.crop_size=48", "callbacks.cost.repeats=0", "trainer.log_every_n_steps=1", "run_dir=run"]


def test_a_terminal_gets_a_bar_and_a_file_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(progress(every_seconds=1), Lines), "pytest reads what is printed"
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert isinstance(progress(every_seconds=1), Bar)


STATUS = {"step": "125280/125280", "loss": "0.123", "images/s": "1234.5", "left": "123:45:59", "mIoU": "45.32"}


@pytest.mark.parametrize(
    ("width", "kept"),
    [
        (100, ["step", "loss", "images/s", "left", "mIoU"]),
        (66, ["loss", "images/s", "left", "mIoU"]),
        (44, ["loss", "left", "mIoU"]),
        (30, ["left", "mIoU"]),
        (5, ["mIoU"]),
    ],
)
def test_a_narrow_terminal_leaves_out_what_matters_least(width: int, kept: list[str]) -> None:
    assert list(fitting(STATUS, width)) == kept
    assert "step" not in fitting({**STATUS, "mine": "0.5"}, 80)


@pytest.mark.slow
def test_a_score_of_some_images_says_of_how_many(command: Command, tmp_path: Path) -> None:
    write_camvid(tmp_path / "CamVid", train=4, val=3)
    limits = ["trainer.max_epochs=1", "trainer.limit_val_batches=2", "trainer.limit_test_batches=1"]
    done = command("train", *OPTIONS, *limits)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Validation, step 2, mIoU \S+, pixel accuracy \S+, 2 of 3 images$", done.stdout, re.M)
    assert re.search(r"^camvid val, protocol native: mIoU .*, 1 of 3 images$", done.stdout, re.M)
    page = (tmp_path / "run" / "results.md").read_text()
    assert page.count("1 of 3 images") == 1
    assert "(1 images)" not in page


@pytest.mark.slow
def test_a_file_gets_plain_lines(command: Command, tmp_path: Path) -> None:
    write_camvid(tmp_path / "CamVid", train=4, val=2)
    done = command("train", *OPTIONS, "callbacks.progress.every_seconds=0", NO_COLOR="")
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    assert "\\x1b" not in repr(text)
    assert "\r" not in text
    number, time = r"\d+\.\d+", r"\d+:\d\d:\d\d"
    epochs = re.findall(rf"^Epoch (\d)/2, step (\d)/4, loss {number}, images/s {number}, left {time}$", text, re.M)
    assert epochs == [("1", "1"), ("1", "2"), ("2", "3"), ("2", "4")]
    assert len(re.findall(rf"^Validation, step [24], mIoU {number}, pixel accuracy {number}$", text, re.M)) == 2
    assert text.count("Scoring, image 2/2") == 1


@pytest.mark.slow
def test_a_terminal_sees_epoch_loss_time_left_and_score_in_80_columns(command: Command, tmp_path: Path) -> None:
    write_camvid(tmp_path / "CamVid", train=4, val=2)
    done = command("train", *OPTIONS, "trainer.max_epochs=1", TTY_COMPATIBLE="1", TERM="xterm-256color", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout)
    number = r"\d+\.\d+"
    end = rf"loss: {number} images/s: {number} left: \d+:\d\d:\d\d mIoU: \d+\.\d\d"
    assert re.search(rf"Epoch 1/1 +\S{{8}} 2/2 {end}\n", plain)
    shown = [line for line in re.split(r"[\r\n]", plain) if re.match("Sanity|Epoch|Validation|Testing", line)]
    assert len(shown) > 8
    assert max(map(len, shown)) <= 80
    assert "■ bicyclist" in plain, "the class's colour is beside its name"
