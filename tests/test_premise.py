"""The study of the paper's premise, by the commands that users give."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastfcn_pl.evaluation.approximation import approximation_scores
from tests.fakes.camvid import write_camvid
from tests.test_studies import TINY

pytestmark = pytest.mark.slow
EACH_STEP = ["trainer.log_every_n_steps=1"]
Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_sweep_over_two_necks_is_scored_and_reported(command: Command, tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "data", train=4, val=3)
    few = "hydra.sweeper.params={model/neck:'bilinear,none'}"
    done = command("train", "-cn", "premise", *TINY, f"data.root={root}", few, "~callbacks.progress", *EACH_STEP)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "premise"
    assert (folder / "sweep.csv").read_text().startswith("job,overrides,approximation_error,approximation_cosine,mIoU")
    errors = []
    for run in (folder / "0", folder / "1"):
        results, content = json.loads((run / "results.json").read_text()), np.load(run / "approximation.npz")
        assert content["position"].tolist() == [0, 1, 2]
        r2, cosine = approximation_scores(content["sums"].sum(0))
        assert results["approximation_error"] == pytest.approx(1 - r2, abs=1e-5)
        assert results["approximation_cosine"] == pytest.approx(cosine, abs=1e-5)
        errors.append(1 - r2)
        header, *rows = (line.split(",") for line in (run / "metrics" / "metrics.csv").read_text().splitlines())
        logged = [float(row[header.index("val/approximation_error")] or "nan") for row in rows]
        assert np.nanmin(logged) == pytest.approx(1 - r2, abs=1e-5)  # the checkpoint is the one that approximates best
        assert {"train/relative_mse", "train/cosine_distance", "val/approximation_cosine"} <= set(header)

    done = command("report", str(folder), f"output={tmp_path / 'pages'}")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "pages" / "premise.md").read_text()
    assert "How well does each neck approximate" in page
    for name, error in zip(("bilinear", "none"), errors, strict=True):
        assert f"| {name} | 1 | {error:.4f} |" in page

    done = command("evaluate", f"checkpoint={folder / '0' / 'checkpoints' / 'best.ckpt'}")
    assert done.returncode == 0, done.stderr


def test_the_callback_without_the_model_is_refused_in_one_line(command: Command, tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "data", train=4, val=2)
    done = command("train", "data=camvid", f"data.root={root}", *TINY, "callbacks=approximation")
    assert done.returncode == 1
    assert "set model=approximation, too" in done.stderr
    assert "Traceback" not in done.stderr
