"""Checkpoints and runs of earlier versions: their names are read as today's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from fastfcn_pl import Predictor
from fastfcn_pl.config import schema
from fastfcn_pl.config.moved_targets import MODULES, moved_target, upgraded
from fastfcn_pl.engine.job_state import JobState, state_of
from fastfcn_pl.tools.train import train
from tests.conftest import TINY

MakeConfig = Callable[..., DictConfig]
SHORT = [*TINY, "data.train_images=4", "data.val_images=1", "data.size=64", "data.batch_size=2", "data.num_workers=0"]
SHORT += ["callbacks.cost.repeats=0", "trainer.max_epochs=2"]
OLD_TARGETS = [
    *("callbacks.classes.ClassScores", "callbacks.facts.RunFacts", "callbacks.files.RunFiles"),
    *("callbacks.finite.TerminateOnNaN", "callbacks.gradients.GradientNorm", "callbacks.images.ImageScores"),
    *("callbacks.last.LastCheckpoint", "callbacks.memory.GpuMemory", "callbacks.progress.progress"),
    *("callbacks.samples.Samples", "callbacks.summary.CostSummary", "callbacks.throughput.Throughput"),
    *("data.datasets.ade20k.ADE20K", "data.datasets.camvid.CamVid", "data.datasets.cityscapes.Cityscapes"),
    *("data.datasets.coco_stuff.COCOStuff", "data.datasets.folder.Folder", "data.datasets.shapes.Shapes"),
    *("data.datasets.pascal_context.PascalContext", "data.datasets.pascal_voc.PascalVOC", "data.loading.Loading"),
    *("data.photometric.PhotometricDistortion", "data.transforms.RandomFlip"),
    *("data.transforms.RandomResizeCrop", "data.transforms.RandomScaleCrop"),
    *("inference.encoding", "inference.mmseg", "inference.mmseg_slide", "inference.native", "inference.sliding"),
    *("loggers.MetricsFile", "loggers.wandb_logger", "optim.optimizer"),
    *("losses.cross_entropy.CrossEntropy", "losses.dice.Dice", "losses.lovasz.LovaszSoftmax", "losses.ohem.OHEM"),
    *("losses.se.SELoss", "losses.weighted_sum.Term", "losses.weighted_sum.WeightedSum"),
    *("models.backbones.mmseg_resnet.StridedDilatedResNet", "models.backbones.timm.TimmBackbone"),
    *("models.heads.aspp.ASPPHead", "models.heads.aspp_plus.ASPPPlusHead", "models.heads.encnet.EncNetHead"),
    *("models.heads.fcn.FCNHead", "models.heads.psp.PSPHead", "models.heads.uper.UPerHead"),
    *("models.necks.bilinear.Bilinear", "models.necks.dilated.Dilated", "models.necks.fpn.FPN"),
    *("models.necks.jpu.JPU", "models.necks.jpu_x.JPUX", "models.necks.none.NoNeck", "models.segmenter.Segmenter"),
]
"""Classes below `fastfcn_pl` that the options of version 0.1 could write into a checkpoint."""


@pytest.mark.parametrize("name", OLD_TARGETS)
def test_an_old_target_is_one_of_todays_options(name: str) -> None:
    options = "".join(file.read_text() for file in schema.CONF_DIR.rglob("*.yaml"))
    assert re.search(rf"_target_: {re.escape(moved_target(f'fastfcn_pl.{name}'))}\s", options)


@pytest.mark.parametrize(
    "target",
    [
        *("my_parts.inference.native", "inference.native", "fastfcn_pl.inference", "lightning.Trainer"),
        *("fastfcn_pl.inference.torch.hub.load", "fastfcn_pl.data.transforms.geometric.RandomFlip"),
    ],
)
def test_other_targets_stay(target: str) -> None:
    assert moved_target(target) == target


def test_old_keys_of_a_training() -> None:
    old = {"checkpoint": "auto", "init_from": "a.ckpt", "list": [{"_target_": "fastfcn_pl.optim.optimizer"}]}
    assert upgraded(old) == {
        "checkpoint": "a.ckpt",
        "resume": "auto",
        "list": [{"_target_": "fastfcn_pl.training.optim.optimizer"}],
    }
    assert upgraded({"checkpoint": "a.ckpt"}) == {"checkpoint": "a.ckpt"}


def _with_old_names(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as version 0.1 would have written it."""
    old_names = {moved_target(f"fastfcn_pl.{name}"): f"fastfcn_pl.{name}" for name in OLD_TARGETS}

    def renamed(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: renamed(item) for key, item in node.items()}
        return [renamed(item) for item in node] if isinstance(node, list) else old_names.get(node, node)

    old: dict[str, Any] = renamed(config)
    old.pop("resume")
    return {**old, "init_from": old["checkpoint"], "checkpoint": None}


@pytest.mark.slow
def test_a_run_of_an_earlier_version_predicts_and_resumes(make_config: MakeConfig, tmp_path: Path) -> None:
    cfg = make_config(*SHORT)
    train(cfg)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    labels = Predictor(last, "cpu")(image)
    content = torch.load(last, weights_only=True)
    content["hyper_parameters"]["config"] = _with_old_names(content["hyper_parameters"]["config"])
    text = str(content["hyper_parameters"]["config"])
    assert sum(f"fastfcn_pl.{module}." in text for module in MODULES) > 10
    torch.save(content, last)

    assert (Predictor(last, "cpu")(image) == labels).all()
    (tmp_path / "run" / ".hydra").mkdir()
    stored = _with_old_names(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
    OmegaConf.save(OmegaConf.create(stored), tmp_path / "run" / ".hydra" / "config.yaml")
    assert state_of(cfg, tmp_path / "run")[0] is JobState.DONE
    results = tmp_path / "run" / "results.json"
    results.unlink()
    train(make_config(*SHORT, "resume=last"))
    assert results.is_file()
