"""Runs that report to a W&B server, here a fake one on loopback."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastfcn_pl.engine import checkpoint
from tests.conftest import TINY
from tests.fakes.camvid import write_camvid
from tests.fakes.wandb_server import Server, StoredRun, wandb_server
from tests.support import in_process, processes, wandb_file

pytestmark = pytest.mark.slow
KEY = "local-" + "5ec4e7" * 6 + "5ec4"
OPTIONS = [*TINY[:-1], "data=camvid", "data.root=CamVid", "data.batch_size=2", "data.num_workers=0"]
OPTIONS += ["data.augmentation.crop_size=48", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "run_dir=run"]
OPTIONS += ["callbacks.samples.count=1", "callbacks.images.worst=1", "callbacks.cost.repeats=0"]
KILLER = """
import os, pathlib, signal, time
import lightning as L

class Killer(L.Callback):
    "As a machine that is switched off would, once, in the second epoch."
    def on_train_batch_end(self, trainer, *args):
        if trainer.current_epoch == 1 and not pathlib.Path("killed").exists():
            pathlib.Path("killed").touch()
            time.sleep(3)  # W&B sends what is logged each second
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write_camvid(tmp_path / "CamVid", train=4, val=2)
    (tmp_path / "killer.py").write_text(KILLER)
    with wandb_server() as running:
        yield running
        assert not running.unknown, "the client asks for what the server does not know"


def _run(server: Server, folder: Path, *command: str, fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command as a logged-in user, and check that no file of it holds the user's key."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "HOME": str(folder / "home")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    environment |= {"WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1"}
    done = (processes if fresh else in_process).run(command, folder, environment)
    assert KEY not in done.stdout + done.stderr
    assert not [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not [request for request in server.requests if KEY in request]
    login = f"Basic {base64.b64encode(f'api:{KEY}'.encode()).decode()}"
    assert not server.requests or login in server.keys
    return done


def _only(server: Server) -> StoredRun:
    (run,) = server.runs.values()
    return run


def test_a_run_that_was_killed_goes_on_as_the_same_run(server: Server, tmp_path: Path) -> None:
    killer = ["+callbacks.killer._target_=killer.Killer", "callbacks.files.checkpoint=true"]
    killed = _run(server, tmp_path, "fastfcn_pl.train", *OPTIONS, *killer, fresh=True)
    assert killed.returncode == -9, killed.stderr
    run = _only(server)
    assert run.state == "running", "until the server, hearing nothing, calls it crashed"

    done = _run(server, tmp_path, "fastfcn_pl.train", "resume=run/checkpoints/last.ckpt", "trust=[killer]")
    assert done.returncode == 0, done.stderr
    assert f"W&B run: {server.url}/somebody/fastfcn_pl/runs/{run.name}" in done.stdout
    assert _only(server) is run
    assert (run.state, run.exit_code, run.begun) == ("finished", 0, 2)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert run.config["model"]["value"]["neck"]["width"] == 8
    assert run.config["data"]["value"]["root"] == "CamVid"
    assert run.summary["final/mIoU"] == pytest.approx(results["mIoU"])
    assert run.summary["neck"] == "jpu"
    assert "neck=jpu" in run.fields["tags"]
    losses = {row["trainer/global_step"]: row["train/loss"] for row in run.history if "train/loss" in row}
    assert sorted(losses) == [0, 1, 2, 3]
    assert [row["trainer/global_step"] for row in run.history if "val/mIoU" in row] == [1, 3]
    assert [row["_step"] for row in run.history] == list(range(len(run.history)))
    shown = [row["val/samples/0"] for row in run.history if "val/samples/0" in row]
    assert len(shown) == 2
    assert {shown[-1]["path"], *(mask["path"] for mask in shown[-1]["masks"].values())} <= set(run.files)
    assert {"resolved_config.yaml", "wandb-summary.json", "config.yaml"} <= set(run.files)

    (model,) = (artifact for artifact in run.artifacts if artifact["artifactTypeName"] == "model")
    assert {alias["alias"] for alias in model["aliases"]} == {"best", f"step-{results['checkpoint_step']}", "latest"}
    assert model["committed"]
    (path,) = (path for path in run.files if path.endswith("best.ckpt"))
    (tmp_path / "downloaded.ckpt").write_bytes(run.files[path])
    weights = checkpoint.load(tmp_path / "downloaded.ckpt").state_dict()
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(weights[name], tensor) for name, tensor in best.items())


def test_a_run_whose_loss_is_nan_fails_and_alerts(server: Server, tmp_path: Path) -> None:
    done = _run(server, tmp_path, "fastfcn_pl.train", *OPTIONS, "optimizer.lr=1e30", "logger.wandb.group=mine")
    assert done.returncode == 1
    assert "the loss is not finite" in done.stderr
    run = _only(server)
    assert (run.state, run.exit_code) == ("failed", 1)
    assert run.fields["groupName"] == "mine"
    (alert,) = run.alerts
    assert alert["title"] == "Training stopped"
    assert "the loss is not finite" in alert["text"]
    assert alert["severity"] == "ERROR"


def test_a_sync_uploads_all_of_an_offline_run(server: Server, tmp_path: Path) -> None:
    done = _run(server, tmp_path, "fastfcn_pl.train", *OPTIONS, "logger.wandb.mode=offline", "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    assert not server.requests, "it was offline"
    folder = done.stdout.split("wandb sync ")[1].split(")")[0]
    synced = _run(server, tmp_path, "wandb", "sync", folder, fresh=True)
    assert synced.returncode == 0, synced.stderr
    run, stored = _only(server), tmp_path / "run"
    assert (run.state, run.exit_code) == ("finished", 0)
    recorded = wandb_file.history(stored)
    for key in ("train/loss", "val/mIoU", "final/IoU/sky", "train/grad_norm"):
        assert [row[key] for row in run.history if key in row] == recorded[key], key
    expected = {key: value for key, value in wandb_file.summary(stored).items() if "." not in key}
    assert {key: run.summary[key] for key in expected if not key.startswith("_")} == {
        key: value for key, value in expected.items() if not key.startswith("_")
    }
    assert run.config["seed"]["value"] == 0
    assert wandb_file.files(stored) <= set(run.files)
    for path in wandb_file.files(stored):
        assert run.files[path] == (next(stored.glob("wandb/offline-run-*")) / "files" / path).read_bytes(), path
