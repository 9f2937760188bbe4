"""A loss that is not finite stops the run before the weights change, and leaves a diagnosis."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from fastfcn_pl.config import build
from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.train import train
from fastfcn_pl.training.callbacks.terminate_on_nan import Magnitude, first_not_finite, magnitudes
from fastfcn_pl.training.module import SegmentationModule
from tests.conftest import TINY
from tests.fakes.camvid import write_camvid
from tests.support import wandb_file

Command = Callable[..., subprocess.CompletedProcess[str]]
SMALL = [*TINY, "data=camvid", "data.root=CamVid", "data.batch_size=2", "data.num_workers=0"]
SMALL += ["data.augmentation.crop_size=48", "trainer.max_epochs=2", "callbacks.cost.repeats=0"]

POISON = """
import os
from torch import nn

class Poison(nn.Module):
    def __init__(self, *, batch, rank, value):
        super().__init__()
        self.batch, self.rank, self.value, self.seen = batch, rank, value, 0
    def forward(self, logits, target, align_corners):
        self.seen += 1
        bad = self.seen == self.batch and int(os.environ.get("LOCAL_RANK", 0)) == self.rank
        return logits.mean() * (float(self.value) if bad else 0)
"""
SLOW = """
import time
import lightning as L
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from fastfcn_pl.training import distributed

distributed._ALONE = 0.5  # 4 s otherwise
_ChildProcessObserver.__init__.__defaults__ = (0.2,)  # seconds between its looks for the other rank, 5 otherwise

class Slow(L.Callback):
    def on_exception(self, trainer, pl_module, exception):
        if trainer.global_rank == 0:
            time.sleep(2)  # an upload, for longer than Lightning takes to find that the other rank is gone
"""
POISONED = """
defaults: [cross_entropy]
terms:
  poison:
    _target_: fastfcn_pl.losses.weighted_sum.Term
    output: logits
    weight: 1.0
    loss: {_target_: poison.Poison, batch: 3, rank: 0, value: nan}
"""


class Root(nn.Module):
    """Loss of 0 with a gradient of NaN."""

    def forward(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        return (logits * 0).abs().sqrt().mean()


@pytest.fixture
def poisoned(tmp_path: Path) -> list[str]:
    """Return the arguments of a run with a loss of NaN in the first of the second epoch's two batches."""
    write_camvid(tmp_path / "CamVid", train=4, val=2)
    (tmp_path / "poison.py").write_text(POISON)
    (tmp_path / "own" / "loss").mkdir(parents=True)
    (tmp_path / "own" / "loss" / "poisoned.yaml").write_text(POISONED)
    return ["-cd", "own", *SMALL, "loss=poisoned", "logger=wandb", "run_dir=run"]


@pytest.mark.slow
def test_a_run_stops_at_a_poisoned_loss(command: Command, poisoned: list[str], tmp_path: Path) -> None:
    done = command("train", *poisoned)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: at step 2 the loss is not finite (loss nan, cross_entropy 2.")
    assert "poison nan): lower optimizer.lr" in line
    assert line.endswith("are in run/not_finite")
    assert "Traceback" not in done.stderr

    batch = torch.load(tmp_path / "run" / "not_finite" / "step_2_rank_0.pt", weights_only=True)
    assert (batch["image"].shape, batch["image"].dtype) == ((2, 3, 48, 48), torch.uint8)
    page = (tmp_path / "run" / "not_finite" / "step_2_rank_0.md").read_text()
    assert "| poison | nan |" in page
    assert "Every layer's output is finite" in page
    for index in batch["index"].tolist():
        assert f"- CamVid/train/{index:04d}.png, CamVid/trainannot/{index:04d}.png: " in page
    gradients = page.partition("gradients")[2].partition("##")[0]
    assert "| model.aux_head.layers.0.0.weight |" in gradients
    assert "| model.head." not in gradients, "poisoned: NaN has no size"

    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())
    assert wandb_file.exit_code(tmp_path / "run") == 1
    (alert,) = wandb_file.of_kind(tmp_path / "run", "alert")
    assert (alert.title, alert.level) == ("Training stopped", "ERROR")
    assert alert.text.startswith("At step 2 the loss is not finite (loss nan")


@pytest.mark.slow
def test_all_ranks_stop_at_the_loss_of_one(command: Command, poisoned: list[str], tmp_path: Path) -> None:
    ddp = ["trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=1", "loss.terms.poison.loss.rank=1"]
    (tmp_path / "slow.py").write_text(SLOW)
    done = command("train", *poisoned, *ddp, "+callbacks.slow._target_=slow.Slow", fresh=True)
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "error: at step 2 the loss is not finite on rank 1 (loss nan" in done.stderr
    assert sorted(p.name for p in (tmp_path / "run" / "not_finite").iterdir()) == [
        "step_2_rank_1.md",
        "step_2_rank_1.pt",
    ]
    assert wandb_file.exit_code(tmp_path / "run") == 1


@pytest.fixture
def small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_config: Callable[..., DictConfig]
) -> Callable[..., DictConfig]:
    """Return a function that composes the config of a small run in the test's folder."""
    write_camvid(tmp_path / "CamVid", train=4, val=2)
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: make_config(*SMALL, *overrides)


def _parts(cfg: DictConfig) -> tuple[L.LightningDataModule, SegmentationModule, L.Trainer]:
    datamodule = build.datamodule(cfg)
    return datamodule, build.module(cfg, datamodule.spec), build.trainer(cfg)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_layer_that_overflows_is_named_and_no_weight_changes(
    small: Callable[..., DictConfig], accumulate: int
) -> None:
    datamodule, module, trainer = _parts(small(f"trainer.accumulate_grad_batches={accumulate}"))
    with torch.no_grad():
        module.model.head.layers[2].weight.mul_(1e30)
        module.model.head.layers[0][1].weight.fill_(1e20)
    before = [parameter.clone() for parameter in module.parameters()]
    with pytest.raises(UserError, match="at step 0 the loss is not finite"):
        trainer.fit(module, datamodule=datamodule)
    page = Path("run/not_finite/step_0_rank_0.md").read_text()
    layer = "model.head.layers.2 (Conv2d)"
    assert f"First layer with an output that is not finite: {layer}, with " in page
    top = page.partition("Largest weights")[2].partition("---: |\n")[2].splitlines()
    assert top[0].startswith("| model.head.layers.2.weight | ")
    assert top[1] == "| model.head.layers.0.1.weight | 1e+20 |"
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batches", "cause"), [(1, r"\d+ weights and buffers are not finite"), (2, "the loss is not finite")]
)
def test_weights_spoilt_under_a_finite_loss_are_not_kept(
    small: Callable[..., DictConfig], batches: int, cause: str
) -> None:
    cfg = small(f"trainer.limit_train_batches={batches}")
    cfg.loss.terms.cross_entropy.loss = {"_target_": f"{__name__}.Root"}
    with pytest.raises(UserError, match=f"at step 1 {cause}"):
        train(cfg)
    assert "Weights are not finite after an earlier step" in Path("run/not_finite/step_1_rank_0.md").read_text()
    assert not list(Path("run").rglob("*.ckpt"))


@pytest.mark.slow
def test_an_infinite_gradient_is_the_scalers_business(small: Callable[..., DictConfig]) -> None:
    """The scale makes the loss infinite that Lightning passes to callbacks."""
    scaler = "{_target_: torch.amp.GradScaler, device: cpu, init_scale: 3.0e+38}"
    mixed = (
        f"{{_target_: lightning.pytorch.plugins.MixedPrecision, precision: 16-mixed, device: cpu, scaler: {scaler}}}"
    )
    datamodule, module, trainer = _parts(small("trainer.precision=null", f"+trainer.plugins=[{mixed}]"))
    before = [parameter.clone() for parameter in module.parameters()]
    trainer.fit(module, datamodule=datamodule)
    assert trainer.precision_plugin.scaler.get_scale() == pytest.approx(3e38 / 2**4)  # halved at each of 4 steps
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_the_first_layer_that_is_not_finite_is_the_innermost() -> None:
    block = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    model = nn.Sequential(nn.Linear(2, 2), block, nn.Linear(2, 2))
    x = torch.tensor([[3.0, -4.0]])
    assert first_not_finite(model, lambda: model(x)) is None
    nn.init.constant_(block[1].weight, float("inf"))
    nn.init.eye_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    assert first_not_finite(model, lambda: model(x)) == "1.1 (Linear), with 4 as its largest input"
    assert not any(layer._forward_hooks for layer in model.modules())


def test_a_magnitude_is_the_largest_finite_value() -> None:
    tensors = {
        "a": torch.tensor([1.0, -3.0, float("nan"), float("-inf")]),
        "count": torch.tensor(7),
        "none": torch.zeros(0),
        "b": torch.tensor([[float("inf")]]),
    }
    assert magnitudes(tensors.items()) == [Magnitude("a", 3, 2), Magnitude("b", 0, 1)]
