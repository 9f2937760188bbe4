"""A resumed run ends bit for bit like an uninterrupted one."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig

from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine.resume import StoppedRun
from fastfcn_pl.tools.train import train
from fastfcn_pl.training.checkpoint_io import moved
from tests.conftest import TINY
from tests.fakes.camvid import write_camvid
from tests.support import in_process, processes
from tests.support.grids import sample
from tests.support.processes import age, start, wait

pytestmark = pytest.mark.slow
TRAIN = "fastfcn_pl.train"
SHORT = [*TINY, "data.train_images=11", "data.val_images=2", "data.size=32", "data.batch_size=2", "data.num_workers=0"]
SHORT += ["trainer.max_epochs=2", "trainer.log_every_n_steps=1", "callbacks.last.every_n_steps=2"]
SHORT += ["callbacks.cost.repeats=0", "callbacks.samples.count=1", "optimizer=adamw"]
STATE = ("epoch", "global_step", "total_steps", "state_dict", "optimizer_states", "lr_schedulers")
STATE += ("current_model_state", "averaging_state")
MODERN = ["warmup.steps=5", "scheduler=cosine", "optimizer=muon", "optimizer.layer_decay=0.7", "freeze=backbone.stem"]
MODERN += ["model.backbone.drop_path_rate=0.3", "trainer.gradient_clip_val=0.1", "data/augmentation/color=strong"]
OF_TIME = ("train/images_per_second", "train/data_wait")
MakeConfig = Callable[..., DictConfig]
Command = Callable[..., subprocess.CompletedProcess[str]]


class Keep(L.Callback):
    """Callback that keeps every `last.ckpt` of a run."""

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self._keep(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._keep(trainer)

    def on_train_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._keep(trainer)

    def _keep(self, trainer: L.Trainer) -> None:
        last = Path(trainer.default_root_dir, "checkpoints", "last.ckpt")
        if last.is_file():
            kept = last.parents[1] / "kept" / f"{last.stat().st_mtime_ns}.ckpt"
            kept.parent.mkdir(exist_ok=True)
            if not kept.exists():
                shutil.copy2(last, kept)


def _state(folder: Path) -> dict[str, Any]:
    """Return the state that has to be equal: weights, optimizer, schedule, averages, progress and scores."""
    state: dict[str, Any] = {}
    for name in ("best", "last"):
        content = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        loop = content["loops"]["fit_loop"]
        state[name] = {key: content[key] for key in STATE if key in content}
        state[name]["progress"] = [loop["epoch_progress"], loop["epoch_loop.batch_progress"]]
        state[name]["callbacks"] = {
            key: {k: v for k, v in callback.items() if k != "current_score"}  # of the last validation, not restored
            for key, callback in content["callbacks"].items()
            if not key.startswith("Timer")
        }
    with (folder / "metrics" / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if v and k not in OF_TIME} for row in csv.DictReader(file)]
    return {**state, "metrics": [row for row in rows if len(row) > 1]}


def _assert_equal(found: Any, expected: Any, path: str = "") -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), path
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected:
            _assert_equal(found[key], expected[key], f"{path}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), path
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            _assert_equal(a, b, f"{path}/{i}")
    else:
        assert found == expected, path


def _inside_of_an_epoch(checkpoint: Path) -> bool:
    progress = torch.load(checkpoint, weights_only=True)["loops"]["fit_loop"]["epoch_progress"]["current"]
    return progress["ready"] > progress["processed"]


@pytest.mark.parametrize("each", sample([False, True], False))
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([], id="epochs", marks=pytest.mark.exhaustive),
        pytest.param(
            ["trainer.max_epochs=-1", "trainer.max_steps=8", "warmup.epochs=0.5"],
            id="steps",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            ["callbacks=ema", "callbacks.last.every_n_steps=3"], id="averaged weights", marks=pytest.mark.exhaustive
        ),
        pytest.param(["trainer.accumulate_grad_batches=2"], id="accumulated batches", marks=pytest.mark.exhaustive),
        pytest.param(
            ["trainer.val_check_interval=0.5"], id="validation inside of an epoch", marks=pytest.mark.exhaustive
        ),
        pytest.param([*MODERN, "callbacks.last.every_n_steps=3"], id="modern recipe"),
        pytest.param(["data.num_workers=2", "trainer.check_val_every_n_epoch=2"], id="workers"),
    ],
)
def test_a_run_resumes_from_its_checkpoints(
    overrides: list[str], each: bool, make_config: MakeConfig, tmp_path: Path
) -> None:
    """It resumes from one inside of an epoch and one at the end of an epoch, or from each of them."""
    given = [o for o in SHORT if o.split("=")[0] not in {p.split("=")[0] for p in overrides}]
    cfg = make_config(*given, *overrides, "+callbacks.keep._target_=tests.engine.test_resume.Keep")
    folder = Path(cfg.run_dir)
    train(cfg)
    expected = _state(folder)
    *kept, _ = sorted((folder / "kept").iterdir())  # the last one is of the run's end
    inside, ends = [path for path in kept if _inside_of_an_epoch(path)], [p for p in kept if not _inside_of_an_epoch(p)]
    for path in kept if each else (inside[-1], ends[0]):
        shutil.copy2(path, folder / "checkpoints" / "last.ckpt")
        train(make_config(*SHORT, "resume=last", "trust=[tests]"))
        _assert_equal(_state(folder), expected, str(kept.index(path)))


@pytest.mark.exhaustive
def test_a_moved_run_resumes_in_its_folder_with_its_w_and_b_run(command: Command, tmp_path: Path) -> None:
    arguments = [*[o for o in SHORT if o != "logger=none"], "logger=wandb", "logger.wandb.mode=offline"]
    done = command("train", *arguments, "hydra.run.dir=first", "+callbacks.keep._target_=tests.engine.test_resume.Keep")
    assert done.returncode == 0, done.stderr
    first, second = tmp_path / "first", tmp_path / "second"
    expected = _state(first)
    first.rename(second)
    early = sorted((second / "kept").iterdir())[0]
    shutil.copy2(early, second / "checkpoints" / "last.ckpt")
    (second / "checkpoints" / "best.ckpt").unlink()
    done = command("train", "resume=second/checkpoints/last.ckpt", "trust=[tests]")
    assert done.returncode == 0, done.stderr
    _assert_equal(_state(second), moved(expected, str(first), str(second)))
    assert not first.exists()
    ids = {path.name.rpartition("-")[2] for path in (second / "wandb").glob("offline-run-*")}
    assert len(ids) == 1
    results = json.loads((second / "results.json").read_text())
    assert results["choices"]["optimizer"] == "adamw"
    config = yaml.safe_load((second / ".hydra" / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 2, "what began the run is kept"


def test_a_new_run_starts_from_the_weights_that_fit(make_config: MakeConfig, tmp_path: Path, capsys: Any) -> None:
    train(make_config(*SHORT, "trainer.max_steps=1"))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = torch.load(last, weights_only=True)["state_dict"]
    root = write_camvid(tmp_path / "CamVid", train=2, val=1)
    base = [o for o in SHORT if not o.startswith("data.")]
    other = [
        "data=camvid",
        f"data.root={root}",
        "data.batch_size=2",
        "data.num_workers=0",
        "data.augmentation.crop_size=48",
    ]
    capsys.readouterr()
    cfg = make_config(*base, *other, "optimizer.lr=0.0", "trainer.max_epochs=1", f"checkpoint={last}")
    cfg.run_dir = str(tmp_path / "tuned")
    train(cfg)
    printed = capsys.readouterr().out
    assert f"a new run starts from {last}: " in printed
    assert f"(resume={last} would continue its own run)" in printed
    assert "4 start fresh:" in printed
    assert "model.head.layers.2.weight (8x8x1x1 there, 11x8x1x1 here)" in printed
    after = torch.load(tmp_path / "tuned" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    weights = [n for n in before if n.endswith("weight") and before[n].ndim == 4 and "layers.2" not in n]
    assert len(weights) > 10
    assert all(torch.equal(after[name], before[name]) for name in weights)


DAMAGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "no parameter groups": lambda content: content["optimizer_states"][0].pop("param_groups"),
    "another optimizer": lambda content: content["optimizer_states"][0]["param_groups"].pop(),
    "a state of another shape": lambda content: content["optimizer_states"][0]["state"][0].update(
        exp_avg=torch.zeros(3)
    ),
    "no state of a scheduler": lambda content: content.update(lr_schedulers=["x"]),
    "a callback's state": lambda content: content["callbacks"].update(RunFacts=["x"]),
    "a loop's state": lambda content: content["loops"]["fit_loop"].update({"epoch_loop.state_dict": None}),
    "a loop's counts": lambda content: content["loops"]["fit_loop"].pop(
        "epoch_loop.automatic_optimization.optim_progress"
    ),
}


def test_a_damaged_state_is_one_line(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(*SHORT))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    for name, damage in DAMAGES.items():
        last.write_bytes(whole)
        content = torch.load(last, weights_only=True)
        damage(content)
        torch.save(content, last)
        with pytest.raises(UserError) as caught:
            train(make_config(*SHORT, "resume=last"))
        assert f"{last} cannot be used: it is damaged, or it or the code" in str(caught.value), name
        assert "\n" not in str(caught.value), name


def test_a_repeated_logger_continues_the_w_and_b_run(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(*SHORT))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["hyper_parameters"]["config"]["logger"]["wandb"] = {"id": "0097eeb8", "mode": "offline"}
    torch.save(content, last)
    cfg = make_config(*SHORT, "logger=wandb", "logger.wandb.mode=disabled", "resume=last", "logger.wandb.choices=null")
    for overrides in ([], ["logger=wandb", "logger.wandb.mode=disabled"]):
        run = StoppedRun.read(cfg).config(cfg, overrides)
        assert (run.logger.wandb.id, run.logger.wandb.mode) == ("0097eeb8", "disabled" if overrides else "offline")


class Heavy(L.Callback):
    """Callback that slows down the writing of checkpoints."""

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["heavy"] = torch.zeros(8_000_000)


BROKEN = [*SHORT, "trainer.max_epochs=4", "data.num_workers=1", "callbacks.last.every_n_steps=3"]
BROKEN += ["data.train_images=16", "+callbacks.heavy._target_=tests.engine.test_resume.Heavy"]


def _broken(ranks: int) -> list[str]:
    """Return the overrides of the killed runs, which have the same number of steps for any number of ranks."""
    return BROKEN if ranks == 1 else [*BROKEN, f"trainer.devices={ranks}", f"data.train_images={16 * ranks}"]


def _finish(given: list[str], ranks: int, folder: Path) -> None:
    done = (in_process if ranks == 1 else processes).run([TRAIN, *given], folder)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return a function that returns the folder of an uninterrupted run with that many ranks."""
    home = tmp_path_factory.mktemp("unbroken")

    def run(ranks: int) -> Path:
        folder = home / str(ranks)
        if not folder.exists():
            _finish([*_broken(ranks), f"hydra.run.dir={folder}"], ranks, home)
        return folder

    return run


@pytest.mark.parametrize(
    ("ranks", "kills"),
    [(1, 1), *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in ((1, 6), (2, 1), (2, 6)))],
)
@pytest.mark.parametrize("moment", sample(["inside of an epoch", "inside of a save"], "inside of a save"))
def test_a_killed_run_ends_like_one_that_was_not(
    moment: str, ranks: int, kills: int, tmp_path: Path, unbroken: Callable[[int], Path]
) -> None:
    broken = tmp_path / "broken"
    rng = np.random.default_rng(kills)
    last, hidden = broken / "checkpoints" / "last.ckpt", broken / "checkpoints" / ".last.ckpt"
    given = [*_broken(ranks), f"hydra.run.dir={broken}"]
    killed, torn = 0, 0
    for _ in range(kills):
        before = age(last)
        process = start(tmp_path, TRAIN, *given)
        resumable = wait(process, lambda before=before: age(last) > before)  # type: ignore[misc]
        if moment == "inside of a save":
            resumable = resumable and wait(process, hidden.exists)
        time.sleep(rng.uniform(0, 0.01 if moment == "inside of a save" else 0.4))
        killed += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        torn += hidden.exists()
        given = [f"resume={last}", "trust=[tests]"]
        if not resumable:
            break
    assert killed >= (kills if kills == 1 else 5), "the run ended before it could be killed"
    assert moment != "inside of a save" or torn >= kills - 1, "saves ended before they could be killed"
    _finish([f"resume={last}", "trust=[tests]"], ranks, tmp_path)
    assert [path.name for path in broken.rglob(".*.ckpt")] == []
    expected = unbroken(ranks)
    _assert_equal(_state(broken), moved(_state(expected), str(expected), str(broken)))


class Fill(L.Callback):
    """Callback that fills the disk before a save, by limiting the size of files."""

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.global_step == 6 and "FULL" in os.environ:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))


@pytest.mark.exhaustive
def test_a_full_disk_ends_a_run_of_two_ranks_which_then_resumes(
    tmp_path: Path, unbroken: Callable[[int], Path]
) -> None:
    broken = tmp_path / "broken"
    given = [*_broken(2), f"hydra.run.dir={broken}", "+callbacks.fill._target_=tests.engine.test_resume.Fill"]
    process = start(tmp_path, TRAIN, *given, FULL="1")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert stderr.strip().splitlines()[-1].startswith(f"error: {broken}/checkpoints/last.ckpt cannot be written (File")
    assert [path.name for path in broken.rglob(".*.ckpt")] == []
    assert torch.load(broken / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    _finish([f"resume={broken}/checkpoints/last.ckpt", "trust=[tests]"], 2, tmp_path)
    expected = unbroken(2)
    _assert_equal(_state(broken), moved(_state(expected), str(expected), str(broken)))
