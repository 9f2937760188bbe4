"""Flags of Lightning's Trainer: each works, or is rejected before training with a reason."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config import build, schema, trainer_flags, validation
from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.train import train
from tests.conftest import TINY

SMALL = [*TINY, "data.train_images=8", "data.val_images=4", "data.size=64", "data.num_workers=0", "data.batch_size=2"]
SMALL += ["trainer.max_epochs=2", "callbacks.cost.repeats=0", "~callbacks.progress"]
FLAGS = [name for name in inspect.signature(L.Trainer.__init__).parameters if name != "self"]
Make = Callable[..., DictConfig]


@pytest.mark.parametrize("flag", FLAGS)
def test_each_flag_is_a_key(flag: str) -> None:
    """Otherwise a flag would be "no such key", or would need a +."""
    assert flag in OmegaConf.load(schema.CONF_DIR / "trainer" / "default.yaml")


def test_the_defaults_are_accepted(make_config: Make) -> None:
    cfg = make_config(*SMALL)
    validation.check(cfg)
    trainer_flags.check(cfg)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("trainer.overfit_batches=1", "each epoch samples other images"),
        ("trainer.overfit_batches=0.5", "each epoch samples other images"),
        ("trainer.logger=false", "logger=none"),
        ("trainer.callbacks=[]", r"\+callbacks"),
        ("trainer.enable_checkpointing=false", "final score"),
        ("trainer.model_registry=mine", "kept in the run's folder"),
        ("trainer.barebones=true", "benchmark"),
        ("trainer.use_distributed_sampler=true", "our samplers"),
        ("trainer.limit_train_batches=0", "leaves nothing to do"),
        ("trainer.limit_test_batches=0.0", "leaves nothing to do"),
        ("trainer.max_epochs=0", "leaves nothing to do"),
        ("trainer.max_steps=0", "leaves nothing to do"),
        ("trainer.devices=0", "leaves nothing to do"),
        ("trainer.devices=[0,1]", "CPUs are not numbered"),
        ("trainer.devices=-1", "CPUs are not numbered"),
        ("trainer.strategy=fsdp", "use trainer.strategy=ddp"),
        ("trainer.strategy=fsdp_cpu_offload", "use trainer.strategy=ddp"),
        ("trainer.strategy=deepspeed_stage_2", "use trainer.strategy=ddp"),
        ("trainer.accumulate_grad_batches=-1", "use 1 or more"),
        ("trainer.check_val_every_n_epoch=-1", "use 1 or more"),
        ("trainer.gradient_clip_val=-0.5", "use 0 or more"),
        ("trainer.deterministic=yeah", "true, false or warn"),
        ("seed=-1", "from 0 to 4294967295"),
        ("seed=20240101123456", "from 0 to 4294967295"),
    ],
)
def test_a_flag_that_cannot_work_is_refused_by_name(setting: str, reason: str, make_config: Make) -> None:
    key = setting.partition("=")[0].replace(".", r"\.")
    with pytest.raises(UserError, match=f"^{key}=.*{reason}"):
        trainer_flags.check(make_config(*SMALL, setting))


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("trainer.val_check_interval=5", "more than the 4 batches of an epoch"),
        ("trainer.limit_train_batches=0.2", "of 4 batches leaves none"),
        ("trainer.limit_test_batches=0.2", "of 4 batches leaves none"),
    ],
)
def test_a_flag_that_does_not_fit_the_data_is_refused(setting: str, reason: str, make_config: Make) -> None:
    cfg = make_config(*SMALL, setting)
    with pytest.raises(UserError, match=reason):
        trainer_flags.check_batches(build.trainer(cfg), build.datamodule(cfg))


@pytest.mark.parametrize(
    "setting", ["trainer.val_check_interval=4", "trainer.val_check_interval=0.1", "trainer.limit_train_batches=100"]
)
def test_a_flag_that_fits_the_data_is_not(setting: str, make_config: Make) -> None:
    cfg = make_config(*SMALL, setting)
    trainer_flags.check_batches(build.trainer(cfg), build.datamodule(cfg))


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_spawn_find_unused_parameters_true"])
def test_strategies_that_give_nothing_back_are_refused(strategy: str, make_config: Make) -> None:
    with pytest.raises(UserError, match=r"trainer\.strategy: .*use trainer\.strategy=ddp"):
        trainer_flags.check_strategy(
            build.trainer(make_config(*SMALL, f"trainer.strategy={strategy}", "trainer.devices=2"))
        )


@pytest.mark.parametrize(("devices", "ranks"), [("auto", 1), ("1", 1), ("2", 2), ("'2'", 2)])
def test_processes_on_cpus_are_a_number(devices: str, ranks: int, make_config: Make) -> None:
    cfg = make_config(*SMALL, f"trainer.devices={devices}")
    trainer_flags.check(cfg)
    assert build.trainer(cfg).world_size == ranks


def test_a_gpu_is_chosen_by_its_number(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for devices in ("[0,1]", "-1", "auto"):
        trainer_flags.check(make_config(*SMALL, "trainer.accelerator=auto", f"trainer.devices={devices}"))


@pytest.mark.slow
def test_a_time_that_is_none_at_all_is_refused(make_config: Make) -> None:
    with pytest.raises(UserError, match=r"before its first step.*max_time"):
        train(make_config(*SMALL, "trainer.max_time=00:00:00:00"))


@pytest.mark.slow
def test_training_ends_at_its_time(make_config: Make, tmp_path: Path) -> None:
    train(make_config(*SMALL, "trainer.max_time=00:00:00:01", "trainer.max_epochs=1000"))
    assert 0 < json.loads((tmp_path / "run" / "results.json").read_text())["epochs"] < 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        (["fast_dev_run=true"], 1),
        pytest.param(["fast_dev_run=2", "profiler=pytorch"], 2, marks=pytest.mark.exhaustive),
        (["limit_train_batches=1", "inference_mode=false", "detect_anomaly=true", "profiler=simple"], 2),
        pytest.param(
            ["reload_dataloaders_every_n_epochs=1", "deterministic=warn", "enable_progress_bar=false"],
            8,
            marks=pytest.mark.exhaustive,
        ),
        (
            [
                "num_sanity_val_steps=-1",
                "gradient_clip_val=0.5",
                "gradient_clip_algorithm=value",
                "limit_val_batches=0",
            ],
            8,
        ),
        pytest.param(
            ["check_val_every_n_epoch=null", "val_check_interval=3", "enable_model_summary=true", "min_steps=3"],
            8,
            marks=pytest.mark.exhaustive,
        ),
        (["limit_val_batches=1", "benchmark=true", "profiler=advanced", "min_epochs=1", "limit_test_batches=2"], 8),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_flags_train_and_are_scored(settings: list[str], steps: int, make_config: Make, tmp_path: Path) -> None:
    train(make_config(*SMALL, *(f"trainer.{setting}" for setting in settings)))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == steps
