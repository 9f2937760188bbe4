"""Folders of runs: a study, and single runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.runs import write_run, write_sweep

PUBLISHED = [
    {"run": "model/neck=jpu", "mIoU": 51.05, "fps": 37.56, "source": "arXiv 1903.11816"},
    {"run": "model/neck=none", "mIoU": 40.5},
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a study of necks and seeds, with overlays and published results."""
    folder = tmp_path_factory.mktemp("study")
    return write_sweep(folder / "sweep", ["jpu", "fpn", "dilated"], [0, 1, 2], overlays=2, published=PUBLISHED)


@pytest.fixture(scope="module")
def going(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return single runs on other data that are not finished: running, failed, and without a first step."""
    folder = tmp_path_factory.mktemp("going")
    one = {"data": "shapes", "study": "train", "multirun": False, "score": None}
    write_run(folder / "a", overrides=["optimizer.lr=0.1"], **one)
    write_run(folder / "b", overrides=["optimizer.lr=0.01"], steps=20, **one)
    failed = write_run(folder / "c", overrides=["optimizer.lr=9"], **one)
    (failed / "error.txt").write_text("optimizer.lr=9: <the loss> is not finite | lower it")
    new = write_run(folder / "d", overrides=["optimizer.lr=0.5"], **one)
    (new / "metrics" / "metrics.csv").unlink()
    return folder
