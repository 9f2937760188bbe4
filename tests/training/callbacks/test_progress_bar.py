"""Progress output on a terminal and in a file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fastfcn_pl.training.callbacks.progress_bar import Bar, Lines, progress
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
def test_a_terminal_sees_epoch_step_loss_speed_and_time_left(command: Command, tmp_path: Path) -> None:
    write_camvid(tmp_path / "CamVid", train=4, val=2)
    done = command("train", *OPTIONS, "trainer.max_epochs=1", TTY_COMPATIBLE="1", TERM="xterm-256color", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout)
    shown = re.sub(r"\s+", " ", plain)
    assert re.search(r"Epoch 1/1 .{20} 2/2 \d:\d\d:\d\d • .*?step: 2/2 loss: \d+\.\d+ images/s: \d+\.\d+ left:", shown)
    assert "■ bicyclist" in plain, "the class's colour is beside its name"
