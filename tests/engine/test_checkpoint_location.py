"""`checkpoint=` takes a file, a run's folder or `last`, in every command, and says which file it took."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from fastfcn_pl import Predictor
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import checkpoint_location
from fastfcn_pl.engine.checkpoint_location import locate
from fastfcn_pl.tools.train import train
from tests.conftest import TINY

SMALL = [*TINY, "data.train_images=2", "data.val_images=1", "data.size=64", "data.batch_size=2", "data.num_workers=0"]
SMALL += ["callbacks.cost.repeats=0", "trainer.max_steps=1"]


def _run(folder: Path, *names: str, age: int = 0, scored: str | None = None) -> Path:
    for name in names:
        file = folder / "checkpoints" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (10_000 - age, 10_000 - age))
    if scored is not None:
        (folder / "results.json").write_text(json.dumps({"checkpoint": f"elsewhere/checkpoints/{scored}"}))
    return folder


def test_a_folder_is_its_scored_or_its_best_checkpoint(tmp_path: Path) -> None:
    assert locate(_run(tmp_path / "a", "best.ckpt", "last.ckpt")).name == "best.ckpt"
    assert locate(_run(tmp_path / "b", "last.ckpt")).name == "last.ckpt"
    assert locate(_run(tmp_path / "c", "best.ckpt", "last.ckpt", scored="last.ckpt")).name == "last.ckpt"
    assert locate("nothing.ckpt") == Path("nothing.ckpt"), "whatever reads it reports it"
    (tmp_path / "d").mkdir()
    for folder, scored in (("d", None), ("e", "other.ckpt")):
        with pytest.raises(UserError, match=f"checkpoint=.*{folder}: no checkpoints/.*use a run's folder"):
            locate(_run(tmp_path / folder, *(["best.ckpt"] if scored else []), scored=scored))


def test_last_is_the_newest_run_of_any_study_or_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="checkpoint=last: no run in runs/ has a checkpoint"):
        locate("last")
    for folder, age in (("named", 40), ("train/2026", 30), ("camvid/2026/1", 20)):
        _run(Path("runs", folder), "best.ckpt", "last.ckpt", age=age)
        assert locate("last") == Path("runs", folder, "checkpoints", "best.ckpt")
    _run(Path("runs/train/older"), "best.ckpt", age=50)
    assert "camvid" in str(locate("last"))


@pytest.mark.slow
def test_commands_say_which_run_and_step_they_took(
    command: Callable[..., subprocess.CompletedProcess[str]], make_config: Callable[..., object], tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "train" / "first"
    train(make_config(*SMALL, f"run_dir={run}"))  # type: ignore[arg-type]
    file = "runs/train/first/checkpoints/best.ckpt"
    photo = next((run / "overlays").rglob("*.png"))
    for name, given, arguments in (
        ("evaluate", "last", ["trainer.accelerator=cpu"]),
        ("predict", "runs/train/first", [f"input={photo}", "output=labels", "device=cpu"]),
        ("export", "last", ["format=torchscript", "output=net.torchscript", f"images={photo}"]),
        ("benchmark", "runs/train/first", ["memory=false", "repeats=1", "size=[64,64]", "device=cpu"]),
        ("train", "last", SMALL),
    ):
        done = command(name, f"checkpoint={given}", *arguments)
        assert done.returncode == 0, done.stderr
        assert f"\ncheckpoint: {file}, step 1\n" in done.stdout
    assert re.search(f"a new run starts from {file}", done.stdout)
    assert json.loads((tmp_path / "labels" / "PROVENANCE").read_text())["checkpoint"] == "best.ckpt"
    assert Predictor(run, "cpu").spec.name == "shapes"


@pytest.mark.parametrize(
    ("given", "taken", "line"),
    [
        ("last", "runs/a/checkpoints/best.ckpt", "checkpoint: runs/a/checkpoints/best.ckpt, step 7"),
        ("runs/a", "runs/a/checkpoints/best.ckpt", "checkpoint: runs/a/checkpoints/best.ckpt, step 7"),
        ("runs/../net.ckpt", "runs/../net.ckpt", None),
        ("./net.ckpt", "net.ckpt", None),
        ("organisation/name", "organisation/name", None),
    ],
)
def test_what_the_user_has_named_is_not_said_again(
    given: str,
    taken: str,
    line: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    _run(Path("runs/a"), "best.ckpt")
    torch.save({"global_step": 7}, "runs/a/checkpoints/best.ckpt")
    torch.save({"state_dict": {}}, "net.ckpt")
    monkeypatch.setattr(checkpoint_location, "overrides", lambda: ["split=val", f"checkpoint={given}"])
    cfg = OmegaConf.create({"checkpoint": given})
    checkpoint_location.resolve_checkpoint(cfg)
    assert cfg.checkpoint == taken
    checkpoint_location.say_choice(cfg)
    assert capsys.readouterr().out == ("" if line is None else f"{line}\n")
