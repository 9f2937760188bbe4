"""Averaged weights are validated and saved; compiling does not change a checkpoint."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from fastfcn_pl.engine import checkpoint
from fastfcn_pl.tools.evaluate import evaluate
from fastfcn_pl.tools.train import train
from tests.conftest import TINY
from tests.support.grids import sample

pytestmark = pytest.mark.slow
DECAY = 0.6
SHORT = [*TINY, "data.train_images=8", "data.val_images=2", "data.size=64", "data.batch_size=2", "data.num_workers=0"]
SHORT += ["trainer.max_epochs=3", "callbacks.cost.repeats=0", "callbacks.samples.count=1", "optimizer=adamw"]
AVERAGED = ["callbacks=ema", f"callbacks.ema.decay={DECAY}"]
MakeConfig = Callable[..., DictConfig]


class Averages(L.Callback):
    """Callback that averages weights and running statistics by the formula."""

    average: dict[str, torch.Tensor] | None = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        state = {k: v.double().clone() for k, v in pl_module.state_dict().items()}
        before = Averages.average or state
        Averages.average = {k: DECAY * before[k] + (1 - DECAY) * v for k, v in state.items()}


def _checkpoint(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def test_averages_are_validated_saved_and_scored(make_config: MakeConfig, tmp_path: Path) -> None:
    Averages.average = None
    watched = f"+callbacks.watch._target_={__name__}.Averages"
    cfg = make_config(*SHORT, *AVERAGED, watched)
    train(cfg)
    folder = Path(cfg.run_dir)
    last = _checkpoint(folder, "last")
    assert Averages.average is not None
    for name, value in last["state_dict"].items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value.double(), Averages.average[name], rtol=1e-5, atol=1e-6, msg=name)
    moving = [name for name in last["state_dict"] if name.endswith(("conv1.weight", "running_mean"))]
    assert all(not torch.equal(last["state_dict"][n], last["current_model_state"][n]) for n in moving)

    # what was validated is what best.ckpt holds and what evaluate scores
    with (folder / "metrics" / "metrics.csv").open(newline="") as file:
        validated = [row["val/pixel_accuracy"] for row in csv.DictReader(file) if row["val/pixel_accuracy"]]
    best = _checkpoint(folder, "best")
    epoch = best["global_step"] // 4 - 1
    scored = tmp_path / "scored"
    overrides = (f"checkpoint={folder}/checkpoints/best.ckpt", f"run_dir={scored}", "trainer.accelerator=cpu")
    evaluate(make_config(*overrides, name="evaluate", run_dir=False))
    found = json.loads((scored / "results.json").read_text())["pixel_accuracy"]
    assert found == pytest.approx(float(validated[epoch]), abs=1e-6)


@pytest.mark.parametrize(
    "backend", sample(["aot_eager", "inductor"], "aot_eager")
)  # the former traces, too, but makes no kernels
def test_a_compiled_network_leaves_no_trace(
    backend: str, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []

    def compile(module: nn.Module, **options: Any) -> None:
        compiled.append(module)
        nn_compile(module, **options)

    nn_compile = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", partialmethod(compile, backend=backend))
    options = (*SHORT, *AVERAGED, "callbacks.last.every_n_steps=3")
    options = (*options, "+callbacks.keep._target_=tests.engine.test_resume.Keep")
    cfg = make_config(*options, "compile=true", "trainer.max_epochs=2")
    train(cfg)
    folder = Path(cfg.run_dir)
    assert len(compiled) == 1
    last = _checkpoint(folder, "last")
    assert not any("_orig_mod" in name for key in ("state_dict", "current_model_state") for name in last[key])
    module = checkpoint.load(folder / "checkpoints" / "best.ckpt")
    assert last["state_dict"].keys() == module.state_dict().keys()
    assert module.model._compiled_call_impl is None

    # a run goes on to the same end
    kept = sorted((folder / "kept").iterdir())
    shutil.copy2(kept[0], folder / "checkpoints" / "last.ckpt")
    assert _checkpoint(folder, "last")["global_step"] < last["global_step"]
    train(make_config("resume=last", "trust=[tests]"))
    assert len(compiled) == 2
    again = _checkpoint(folder, "last")["state_dict"]
    for name, value in last["state_dict"].items():
        torch.testing.assert_close(again[name], value, msg=name)
