"""Steps, images and epochs of commands that users run, as work that a benchmark repeats.

Networks have random weights, since time does not depend on them. Each function builds its parts anew: if it is called
while a fast path is switched off, that path is off in the work, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.config import build, schema
from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.evaluation.metrics import ConfusionMatrix
from fastfcn_pl.evaluation.score_map import ScoreMap
from tests.benchmarks.data import ours, photographs
from tests.benchmarks.measure import Work, device
from tests.benchmarks.training import training_step

Overrides = Sequence[str]
Size = tuple[int, int]
IMAGES = 12
IMPORTED_FIRST = "sys"
"""Modules that `start` imports before the command does."""


def composed(config: str, overrides: Overrides = ()) -> DictConfig:
    """Return the configuration of `train -cn <config>` with `overrides`, without pretrained weights."""
    schema.register()
    with initialize_config_dir(str(schema.CONF_DIR), version_base="1.3"):
        return compose(config, ["model.backbone.pretrained=false", "run_dir=.", *overrides])


def images(count: int, size: Size) -> Tensor:
    """Return normalised images in the format that `predict` makes."""
    x = torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last).to(device())


def targets(count: int, size: Size, classes: int) -> Tensor:
    """Return labels, a tenth of them ignored."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, classes, (count, *size), generator=generator, dtype=torch.uint8)
    target[torch.rand(count, *size, generator=generator) < 0.1] = IGNORE
    return target.to(device())


def train(config: str, overrides: Overrides, classes: int, batch: int, size: Size, precision: str = "32-true") -> Work:
    """Return a training step: forward pass, backward pass, and the optimizer."""
    cfg = composed(config, overrides)
    torch.manual_seed(0)
    step = training_step(build.model(cfg, classes), cfg, precision, batch)
    return partial(step, (images(batch, size), targets(batch, size, classes)))


def predict(
    config: str, overrides: Overrides, classes: int, size: Size, dtype: torch.dtype | None = None
) -> partial[Tensor]:
    """Return the labelling of an image: what `predict` does after reading a file and before writing one."""
    torch.manual_seed(0)
    trained = build.model(composed(config, overrides), classes).to(device()).to(memory_format=torch.channels_last)
    network, x = optimize_for_inference(trained, device=device(), dtype=dtype), images(1, size)

    def label() -> Tensor:
        with torch.no_grad():
            return ScoreMap.of(network(x).logits).resized(size, network.align_corners).labels()

    return partial(label)


def evaluate(config: str, overrides: Overrides, classes: int, size: Size) -> Work:
    """Return the scoring of an image, as `evaluate` does it."""
    label, target = predict(config, overrides, classes, size), targets(1, size, classes)
    confusion = ConfusionMatrix(classes).to(device())
    return lambda: confusion.update(label(), target)


def read_camvid(cache: bool = False) -> Work:
    """Return the reading and augmentation of `IMAGES` images in a worker of `train -cn camvid`."""
    folder = tempfile.mkdtemp() if cache else "null"
    dataset = build.datamodule(_camvid(f"data.loader.cache={folder}")).dataset("train", augment=True)
    return lambda: [dataset[0, index] for index in range(IMAGES)]


def read_epochs() -> Work:
    """Return an epoch of `train -cn camvid` in which two workers read and nothing trains."""
    loader = build.datamodule(_camvid("data.num_workers=2")).train_dataloader()
    return lambda: [len(batch["image"]) for batch in loader]


def _camvid(*overrides: str) -> DictConfig:
    root = Path(os.environ["FASTFCN_SHARED"], "data", "CamVid")
    return composed("camvid", [f"data.root={root}", *overrides])


def read_photographs(masks: str) -> Work:
    """Return the same of JPEGs of 683x512 with `masks` of a kind, as `train data=ade20k` reads them."""
    reader = ours(photographs(Path(tempfile.mkdtemp()), IMAGES)[masks], "paper")
    return lambda: [reader(0, index) for index in range(IMAGES)]


def start() -> Work:
    """Return `train --help` in a process of its own."""
    run = "sys.argv[1:] = ['--help']; runpy.run_module('fastfcn_pl.train', run_name='__main__')"
    command = [sys.executable, "-c", f"import runpy, sys, {IMPORTED_FIRST}; {run}"]
    return lambda: subprocess.run(command, check=True, capture_output=True)
