"""MLflow and Trackio: their stores, read back, hold what a run logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import TINY
from tests.fakes.camvid import write_camvid

pytestmark = pytest.mark.slow
Command = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "hunter2"
OPTIONS = [*TINY[:-1], "data=camvid", "data.batch_size=2", "data.num_workers=0", "data.augmentation.crop_size=48"]
OPTIONS += ["trainer.max_epochs=2", "trainer.log_every_n_steps=1", "callbacks.samples.count=2", "seed=3"]
OPTIONS += ["callbacks.images.worst=2", "callbacks.files.checkpoint=true", "run_dir=run", "~callbacks.progress"]


def _train(
    command: Command, folder: Path, *options: str, fresh: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    root = write_camvid(folder / "CamVid", train=5, val=3)
    question = f"question='Is https://me:{SECRET}@example.org secret?'"
    done = command("train", *OPTIONS, f"data.root={root}", question, *options, fresh=fresh, **env)
    assert done.returncode == 0, done.stderr
    return done


def _rows(path: Path) -> list[dict[str, str]]:
    header, *lines = (line.split(",") for line in path.read_text().splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def _column(folder: Path, key: str) -> list[float]:
    rows = _rows(folder / "run" / "metrics" / "metrics.csv")
    return [float(row[key]) for row in rows if row.get(key)]


def test_mlflow_holds_scalars_pictures_tables_and_the_best_checkpoint(command: Command, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    done = _train(command, tmp_path, "logger=mlflow")
    assert "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db" in done.stdout
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("fastfcn_pl")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for key in ("train/loss", "val/mIoU", "val/IoU/sky"):
        history = [point.value for point in client.get_metric_history(run.info.run_id, key)]
        assert history == pytest.approx(_column(tmp_path, key)), key
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert run.data.metrics["final/mIoU"] == pytest.approx(results["mIoU"])
    assert (run.data.params["model/neck/width"], run.data.tags["model/neck"]) == ("8", "jpu")
    artifacts = Path(run.info.artifact_uri)
    config = yaml.safe_load((artifacts / "resolved_config.yaml").read_text())
    assert config["seed"] == 3
    best = torch.load(artifacts / "best.ckpt", weights_only=True)
    assert best["global_step"] == results["checkpoint_step"]
    pictures = {path.name.split("+")[0].replace("~", "/") for path in (artifacts / "images").iterdir()}
    assert {"val/samples/0", "val/samples/1", "val/confusion", "final/worst", "final/confusion"} <= pictures
    table = json.loads((artifacts / "final" / "classes.json").read_text())
    assert table["columns"] == ["step", "class", "IoU", "accuracy", "Dice", "share"]
    scores = {row[1]: row[2] for row in table["data"]}
    assert scores == pytest.approx(results["IoU"], nan_ok=True)
    text = "".join(path.read_text(errors="ignore") for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert SECRET not in text


def test_trackio_holds_scalars_pictures_tables_and_the_best_checkpoint(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="needs the extra trackio")
    store = tmp_path / "store"
    done = _train(command, tmp_path, "logger=trackio", fresh=True, TRACKIO_DIR=str(store))  # read when it is imported
    assert "trackio show --project fastfcn_pl" in done.stdout
    read = (
        "import json, trackio; from trackio.sqlite_storage import SQLiteStorage as S; run, = S.get_runs('fastfcn_pl');"
        "print(json.dumps([S.get_logs('fastfcn_pl', run), S.get_run_config('fastfcn_pl', run)]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", read], env={**os.environ, "TRACKIO_DIR": str(store)}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    logs, config = json.loads(found.stdout.splitlines()[-1])
    for key in ("train/loss", "val/mIoU", "val/IoU/sky"):
        assert [entry[key] for entry in logs if key in entry] == pytest.approx(_column(tmp_path, key)), key
    assert (config["seed"], config["model"]["neck"]["width"]) == (3, 8)
    pictures = {key: entry[key] for entry in logs for key in entry if "samples" in key or "worst" in key}
    assert {"val/samples/0", "val/samples/1", "final/worst"} <= pictures.keys()
    files = list(store.rglob("*.png"))
    assert np.asarray(Image.open(files[0])).ndim == 3
    (table,) = (entry["final/classes"] for entry in logs if "final/classes" in entry)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    rows = table["_value"] if "_value" in table else table["value"]
    assert {row["class"]: row["IoU"] for row in rows} == pytest.approx(results["IoU"], nan_ok=True)
    assert any(path.stat().st_size > 100_000 for path in store.rglob("*") if path.is_file())
    assert SECRET not in "".join(path.read_text(errors="ignore") for path in store.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["mlflow", "trackio"])
def test_a_logger_that_is_not_installed_is_said_in_one_line(
    name: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", False)
    root = write_camvid(tmp_path / "CamVid", train=4, val=2)
    done = command("train", *OPTIONS, f"data.root={root}", f"logger={name}")
    assert done.returncode == 1
    assert f"pip install 'fastfcn-pl[{name}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_resumed_run_continues_in_mlflow(command: Command, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    _train(command, tmp_path, "logger=mlflow")
    done = command("train", "resume=run/checkpoints/last.ckpt", "logger=mlflow")
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("fastfcn_pl").experiment_id])
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val/mIoU")] == [1, 3]
    assert len(client.get_metric_history(run.info.run_id, "final/mIoU")) == 2
