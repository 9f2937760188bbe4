"""W&B's mode for a logged-in user: online only if the server can be reached."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from fastfcn_pl.core import reachability
from fastfcn_pl.training import loggers, wandb_server


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "TIMEOUT", 0.5)
    reachability.check_server.cache_clear()


def test_a_server_that_cannot_be_reached_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.invalid")
    assert not wandb_server.server_reachable()
    assert "http://wandb.invalid cannot be reached" in capsys.readouterr().err


def test_a_run_of_a_logged_in_user_is_then_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.invalid")
    monkeypatch.setenv("WANDB_API_KEY", "local-" + "5ec4e7" * 6 + "5ec4")
    monkeypatch.delenv("WANDB_MODE")
    names = ("project", "entity", "name", "id", "group", "job_type")
    options = {**dict.fromkeys(names), "project": "x", "save_dir": str(tmp_path), "tags": [], "choices": {}}
    assert loggers.wandb_logger({}, mode="auto", **options)._wandb_init["mode"] == "offline"


def test_tensorboards_command_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    board = TensorBoardLogger(tmp_path / "my run", name="tensorboard", version="")
    places = loggers.places_to_look([loggers.MetricsFile(folder="x"), board])
    assert places == {"TensorBoard": "tensorboard --logdir 'my run/tensorboard'"}
    assert loggers.places_to_look([]) == {}
