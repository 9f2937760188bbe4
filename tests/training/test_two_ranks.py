"""A run of two ranks (CPU, gloo), each an interpreter of its own: its scores, its output, its secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.conftest import TINY
from tests.fakes.camvid import write_camvid
from tests.support import in_process, processes
from tests.support.secrets import ENVIRONMENT, PART, assert_clean, part, searched

pytestmark = pytest.mark.slow
OPTIONS = [*TINY, "data=camvid", "data.root=CamVid", "data.batch_size=2", "data.num_workers=0", "trainer.max_epochs=1"]
OPTIONS += ["data.augmentation.crop_size=48", "callbacks.cost.repeats=0", "hydra.run.dir=run"]
OPTIONS += ["trainer.devices=2", "trainer.strategy=ddp", "diagnostics=all"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompletedProcess[str]]:
    """The run's folder, and what was printed. Shares are uneven: 7 images to score on 2 ranks."""
    home = tmp_path_factory.mktemp("home")
    (home / "my_part.py").write_text(PART)
    write_camvid(home / "CamVid", train=4, val=7)
    done = processes.run(["fastfcn_pl.train", *OPTIONS, *part()], home, {**os.environ, **ENVIRONMENT})
    assert done.returncode == 0, done.stderr
    return home / "run", done


def test_two_ranks_score_as_one(run: tuple[Path, CompletedProcess[str]], tmp_path: Path) -> None:
    folder, _ = run
    results = json.loads((folder / "results.json").read_text())
    assert (results["world_size"], results["steps"]) == (2, 1)
    words = [
        f"checkpoint={folder}/checkpoints/best.ckpt",
        "diagnostics=all",
        f"run_dir={tmp_path}/one",
        f"hydra.run.dir={tmp_path}/one",
    ]
    done = in_process.run(["fastfcn_pl.evaluate", *words], folder.parent)
    assert done.returncode == 0, done.stderr
    one = json.loads((tmp_path / "one" / "results.json").read_text())
    assert one["world_size"] == 1
    for key in ("mIoU", "IoU", "accuracy", "share", "images", "diagnostics"):
        assert one[key] == results[key], key


def test_rank_0_alone_prints(run: tuple[Path, CompletedProcess[str]]) -> None:
    _, done = run
    assert done.stdout.count("protocol native: mIoU") == 1


def test_both_ranks_get_the_secrets_and_no_file_does(run: tuple[Path, CompletedProcess[str]]) -> None:
    folder, done = run
    assert_clean("stdout", done.stdout.encode())
    assert_clean("stderr", done.stderr.encode())
    assert not (folder / ".hydra" / "job.yaml").exists()
    assert searched(folder) > 8
