"""A command that ran in a test's process has left it as it was."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from fastfcn_pl.core import redaction
from fastfcn_pl.data.workers import TERMINATION_SIGNALS
from fastfcn_pl.engine.frozen_job import FrozenJob
from tests.conftest import TINY

Command = Callable[..., CompletedProcess[str]]
SMALL = [*TINY, "data.train_images=2", "data.val_images=1", "data.size=32", "data.batch_size=2", "data.num_workers=0"]
SMALL += ["trainer.max_steps=1", "trainer.deterministic=true", "callbacks.cost.repeats=0"]
OWN = """
import os
import lightning as L

class Own(L.Callback):
    def on_fit_start(self, *args):
        os.write(1, b"raw")
"""


def _state() -> dict[str, Any]:
    return {
        "place": (os.getcwd(), dict(os.environ), list(sys.argv), list(sys.path)),
        "streams": (sys.stdout, sys.stderr, os.fstat(1).st_ino, os.fstat(2).st_ino),
        "signals": {number: signal.getsignal(number) for number in TERMINATION_SIGNALS},
        "hydra": (HydraConfig.initialized(), GlobalHydra.instance().is_initialized()),
        "job": FrozenJob.current,
        "secrets": dict(redaction._replacements),
        "logging": (list(logging.root.handlers), logging.root.level, logging.getLogRecordFactory()),
        "hooks": (sys.exit, sys.excepthook, list(warnings.filters)),
        "numbers": (random.getstate(), torch.get_rng_state().tolist()),
        "flags": (torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype(), torch.get_num_threads()),
        "threads": {thread for thread in threading.enumerate() if not thread.daemon},
        "own part": "own" in sys.modules,
    }


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["-m"], ["data.batch_size=9"]], ids=["a run", "a sweep", "a mistake"])
def test_the_process_is_as_it_was(more: list[str], command: Command, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    before = _state()
    done = command("train", *SMALL, "+callbacks.own._target_=own.Own", *more, MY_TOKEN="canary-1")
    assert done.returncode == ("data.batch_size=9" in more), done.stderr
    assert ("raw" in done.stdout) == (not done.returncode), "what is not Python's is caught, too"
    after = _state()
    for name, value in before.items():
        assert after[name] == value, name
