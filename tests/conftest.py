"""What tests share: composing configs as the command line would, running commands, the shared folder of real data."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from fastfcn_pl.config import schema
from tests.support import forked

ROOT = Path(__file__).parent.parent

TINY = [
    "model.backbone.name=test_resnet",
    "model.backbone.pretrained=false",
    "model.neck.width=8",
    "model.head.channels=8",
    "model.aux_head.channels=8",
    "trainer.accelerator=cpu",
    "logger=none",
]
"""The smallest net that is still a whole one: timm's network for tests, JPU, head and auxiliary head."""

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the server that forks commands
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels for GPUs run in Python
torch.set_num_threads(1)  # workers of pytest-xdist share two cores
schema.register()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is exhaustive is slow."""
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """What is there now stays, and is not looked through again: a configuration composes in 0.26 s in place of 0.36."""
    gc.freeze()


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., DictConfig]:
    """Compose a config as `python -m fastfcn_pl.<name> <overrides>` does, with `run_dir` in the test's folder."""

    def make(*overrides: str, name: str = "train", run_dir: bool = True) -> DictConfig:
        with initialize_config_dir(str(schema.CONF_DIR), version_base="1.3"):
            return compose(name, overrides=[*([f"run_dir={tmp_path / 'run'}"] if run_dir else []), *overrides])

    return make


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m fastfcn_pl.<module> <arguments>` in the test's folder, as a user would.

    Where `fresh`, it is with an interpreter of its own, which takes 10 seconds more.
    """

    def run(
        module: str, *arguments: str, timeout: float = 300, fresh: bool = False, **env: str
    ) -> subprocess.CompletedProcess[str]:
        words = [f"fastfcn_pl.{module}", *arguments]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path), "COLUMNS": "100", **env}
        if not fresh:
            return forked.run(words, tmp_path, env, timeout)
        words = [sys.executable, "-m", *words]
        return subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=timeout)

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs; tests that need it skip without it."""
    if "FASTFCN_SHARED" not in os.environ:
        pytest.skip("FASTFCN_SHARED is not set: no folder with CamVid and reference outputs")
    return (ROOT / os.environ["FASTFCN_SHARED"]).resolve()
