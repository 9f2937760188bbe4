"""Several ranks (CPU, gloo) have the scores and the losses of a single one."""

from __future__ import annotations

import csv
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig

from fastfcn_pl.config import build
from tests.conftest import TINY

pytestmark = pytest.mark.slow
SMALL = [*TINY, "data.train_images=16", "data.size=64", "data.num_workers=0", "seed=3"]
SMALL += ["~callbacks.cost", "~callbacks.progress", "trainer.log_every_n_steps=1"]
MakeConfig = Callable[..., DictConfig]
Fresh = Callable[..., Any]


def _ranks(count: int) -> list[str]:
    """Return the overrides for forked ranks, which need not import torch again."""
    return [f"trainer.devices={count}", "trainer.strategy=ddp_fork"]


@pytest.fixture(scope="module")
def _process() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def fresh(_process: ProcessPoolExecutor, tmp_path: Path) -> Fresh:
    """Call a function in a process that can fork, whatever other tests did in this one; what it says is in `said`.

    Torch refuses to train in a fork of a process that has ever made threads for its gradients.
    """
    return lambda function, *args: _process.submit(_saying, tmp_path / "said", function, *args).result()


def _saying(file: Path, function: Callable[..., Any], *args: Any) -> Any:
    with file.open("w") as said:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(said.fileno(), stream.fileno())
    return function(*args)


def _validate(cfg: DictConfig) -> dict[str, float]:
    L.seed_everything(cfg.seed, verbose=False)
    datamodule = build.datamodule(cfg)
    module = build.module(cfg, datamodule.spec)
    (scores,) = build.trainer(cfg).validate(module, datamodule=datamodule, verbose=False)
    return dict(scores)


@pytest.mark.parametrize("images", [7, 2, 1])
def test_any_number_of_ranks_finds_the_same_scores(images: int, make_config: MakeConfig, fresh: Fresh) -> None:
    small = [*SMALL, f"data.val_images={images}"]
    one = fresh(_validate, make_config(*small))
    assert 0 < one["val/pixel_accuracy"] < 1
    for count in (2, 3):
        found = fresh(_validate, make_config(*small, *_ranks(count)))
        assert found == pytest.approx(one, abs=0, rel=0, nan_ok=True)


def _fit(cfg: DictConfig) -> None:
    datamodule = build.datamodule(cfg)
    build.trainer(cfg).fit(build.module(cfg, datamodule.spec), datamodule=datamodule)


def test_training_goes_on_behind_a_validation_on_which_a_rank_had_no_image(
    make_config: MakeConfig, fresh: Fresh
) -> None:
    cfg = make_config(*SMALL, "data.val_images=1", *_ranks(3), "trainer.max_epochs=2", "data.batch_size=2")
    fresh(_fit, cfg)
    last = torch.load(f"{cfg.run_dir}/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4


def _losses(cfg: DictConfig) -> list[float]:
    """Train a network with per-image norms and without dropout; return the loss of each step."""
    L.seed_everything(cfg.seed, verbose=False)
    datamodule = build.datamodule(cfg)
    module = build.module(cfg, datamodule.spec)
    for parent in list(module.model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, torch.nn.BatchNorm2d):
                setattr(parent, name, torch.nn.GroupNorm(1, layer.num_features))
            elif isinstance(layer, torch.nn.Dropout2d):
                setattr(parent, name, torch.nn.Identity())
    build.trainer(cfg).fit(module, datamodule=datamodule)
    with Path(cfg.run_dir, "metrics", "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_equal_global_batches_give_equal_losses(make_config: MakeConfig, tmp_path: Path, fresh: Fresh) -> None:
    steps = [*SMALL, "data.train_images=20", "data.val_images=1", "trainer.max_epochs=1", "data/augmentation=flip"]
    steps += ["trainer.limit_val_batches=0", "~callbacks.checkpoint", "~callbacks.last", "optimizer.lr=0.05"]
    one = fresh(_losses, make_config(*steps, "data.batch_size=4", f"run_dir={tmp_path}/one"))
    said = (tmp_path / "said").read_text()
    assert "learning rate: scaled by 4/16" in said
    rates = [line.split("│")[4].strip() for line in said.splitlines() if line.startswith(("│ backbone", "│ head"))]
    assert rates == ["0.0125", "0.125"]
    two = fresh(_losses, make_config(*steps, "data.batch_size=2", *_ranks(2), f"run_dir={tmp_path}/two"))
    said = (tmp_path / "said").read_text()
    assert said.count("effective batch: 4 images (2 devices, 1 accumulated)") == 1
    assert said.count("SyncBatchNorm runs on GPUs only") == 1
    assert len(one) == 5
    assert max(one) - min(one) > 0.01
    assert two == pytest.approx(one, abs=1e-5)


def test_batch_norms_look_at_all_ranks_images_where_there_are_several_gpus(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning converts them when training starts, which needs a GPU."""
    monkeypatch.setattr(build, "_on_gpu", lambda cfg: True)
    one, two = (build.trainer(make_config(*SMALL, f"trainer.devices={count}")) for count in (1, 2))
    assert not isinstance(one.strategy, DDPStrategy), "the only one that exchanges them"
    cfg = make_config(*SMALL)
    module = build.module(cfg, build.datamodule(cfg).spec)
    norms = [name for name, layer in module.named_modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert isinstance(two.strategy, DDPStrategy)
    assert two.strategy._layer_sync is not None
    exchanged = dict(two.strategy._layer_sync.apply(module).named_modules())
    assert len(norms) > 10
    assert all(isinstance(exchanged[name], torch.nn.SyncBatchNorm) for name in norms)
