"""Fixtures and settings of all tests: composed configurations, commands, the folder of real data."""

from __future__ import annotations

import copy
import functools
import gc
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from fastfcn_pl.config import schema
from fastfcn_pl.config.composition import ConfigLoader
from fastfcn_pl.core import provenance

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

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a shell's `&`, which commands that tests start would inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels for GPUs run in Python
os.fsync = lambda descriptor: None  # no test loses power
provenance._git = functools.cache(provenance._git)  # the checkout stays as it is
torch.set_num_threads(1)  # workers of pytest-xdist share two cores
schema.register()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark exhaustive tests as slow, too, and begin with the slow ones: no worker then waits for another's last one."""
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _algorithms() -> Iterator[None]:
    """Turn deterministic algorithms off after each test: `trainer.deterministic` leaves them on, which is slow."""
    yield
    torch.use_deterministic_algorithms(False)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from going through what was imported: it takes a third of the time of composing."""
    gc.freeze()


@functools.lru_cache(maxsize=200)
def _composed(name: str, options: tuple[str, ...]) -> tuple[DictConfig, tuple[str, ...]]:
    with initialize_config_dir(str(schema.CONF_DIR), version_base="1.3"):
        return compose(name, overrides=list(options)), ConfigLoader.notes


@functools.cache
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_overrides([override])[0]


def _selects_an_option(override: str) -> bool:
    key = _parsed(override).key_or_group
    of_hydra = key.startswith("hydra.") or _parsed(override).is_sweep_override()
    return of_hydra or "/" in key or (schema.CONF_DIR / key).is_dir()


def composed(*overrides: str, name: str = "train") -> DictConfig:
    """Compose a config as `python -m fastfcn_pl.<name> <overrides>` does.

    The same options take no time again: Hydra merges the keys of the command line into what it composed of them.
    """
    options = tuple(override for override in overrides if _selects_an_option(override))
    cfg, ConfigLoader.notes = _composed(name, options)
    cfg = copy.deepcopy(cfg)
    ConfigLoaderImpl._apply_overrides_to_config([_parsed(o) for o in overrides if o not in options], cfg)
    return cfg


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., DictConfig]:
    """Compose a config as `python -m fastfcn_pl.<name> <overrides>` does, with `run_dir` in the test's folder."""

    def make(*overrides: str, name: str = "train", run_dir: bool = True) -> DictConfig:
        cfg = composed(*overrides, name=name)
        if run_dir and not any(override.startswith("run_dir=") for override in overrides):
            cfg.run_dir = str(tmp_path / "run")
        return cfg

    return make


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m fastfcn_pl.<module> <arguments>` in the test's folder, and return what it said.

    It runs in the test's process, which is put back afterwards, or with `fresh` in one of its own.
    """
    from tests.support import in_process, processes  # imports all of Lightning

    def run(module: str, *arguments: str, fresh: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path), "COLUMNS": "100", **env}
        return (processes if fresh else in_process).run([f"fastfcn_pl.{module}", *arguments], tmp_path, env)

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs; tests that need it skip without it."""
    if "FASTFCN_SHARED" not in os.environ:
        pytest.skip("FASTFCN_SHARED is not set: no folder with CamVid and reference outputs")
    return (ROOT / os.environ["FASTFCN_SHARED"]).resolve()
