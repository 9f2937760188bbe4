"""A run of two ranks (CPU, gloo), each an interpreter of its own: its scores, its output, its secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.fakes.camvid import write_camvid
from tests.support import in_process, processes
from tests.support.secrets import ENVIRONMENT, PART, assert_clean, part, searched

pytestmark = pytest.mark.slow
OPTIONS = [*TINY, "data=camvid", "data.root=CamVid", "data.batch_size=2", "data.num_workers=0", "trainer.max_epochs=1"]
OPTIONS += ["data.augmentation.crop_size=48", "callbacks.cost.repeats=0", "hydra.run.dir=run"]
OPTIONS += ["trainer.devices=2", "trainer.strategy=ddp", "diagnostics=all"]


def test_a_run_of_two_ranks(tmp_path: Path) -> None:
    (tmp_path / "my_part.py").write_text(PART)
    write_camvid(tmp_path / "CamVid", train=4, val=7)  # the shares of two ranks are uneven
    done = processes.run(["fastfcn_pl.train", *OPTIONS, *part()], tmp_path, {**os.environ, **ENVIRONMENT})
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    results = json.loads((folder / "results.json").read_text())
    assert (results["world_size"], results["steps"]) == (2, 1)
    assert done.stdout.count("protocol native: mIoU") == 1, "rank 0 alone prints"

    # both ranks get the secrets, and no file does
    assert_clean("stdout", done.stdout.encode())
    assert_clean("stderr", done.stderr.encode())
    assert not (folder / ".hydra" / "job.yaml").exists()
    assert searched(folder) > 8

    # two ranks score as one
    words = [f"checkpoint={folder}/checkpoints/best.ckpt", "diagnostics=all", "run_dir=one", "hydra.run.dir=one"]
    scored = in_process.run(["fastfcn_pl.evaluate", *words], tmp_path)
    assert scored.returncode == 0, scored.stderr
    one = json.loads((tmp_path / "one" / "results.json").read_text())
    assert one["world_size"] == 1
    for key in ("mIoU", "IoU", "accuracy", "share", "images", "diagnostics"):
        assert one[key] == results[key], key
