"""A run that is killed at any moment and resumed leaves the same files as an uninterrupted run."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastfcn_pl.training.checkpoint_io import moved
from tests.conftest import TINY
from tests.support import in_process, processes

pytestmark = pytest.mark.slow
TRAIN = "fastfcn_pl.train"
RUN = [*TINY, "logger=tensorboard", "data.train_images=8", "data.val_images=2", "data.size=64", "data.batch_size=2"]
RUN += ["data.num_workers=0", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "callbacks.last.every_n_steps=2"]
RUN += ["callbacks.cost.repeats=0", "callbacks.samples.count=1", "optimizer=adamw", "trainer.num_sanity_val_steps=0"]
KINDS = {
    "plain": [],
    "averaged": ["callbacks=ema"],
    "accumulated": ["trainer.accumulate_grad_batches=2"],
    "two ranks": ["trainer.devices=2", "data.train_images=16"],
}
_OF_TIME = re.compile(r"train/(images_per_second|data_wait)|train_seconds|latency_ms|time")


def _without_time(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_time(item)
            for key, item in value.items()
            if not (isinstance(key, str) and (_OF_TIME.fullmatch(key) or key.startswith("Timer")))
            and key != "current_score"  # of the last validation, not restored
        }
    if isinstance(value, (list, tuple)):
        return [_without_time(item) for item in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def _events(folder: Path) -> list[tuple[str, int, Any]]:
    """Return the events that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), {"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    scalars = [(t, e.step, repr(e.value)) for t in events.Tags()["scalars"] for e in events.Scalars(t)]
    images = [(t, e.step, e.encoded_image_string) for t in events.Tags()["images"] for e in events.Images(t)]
    return [event for event in [*scalars, *images] if not _OF_TIME.fullmatch(event[0])]


def _content(path: Path) -> Any:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [_without_time(row) for row in csv.DictReader(file)]
    if path.suffix == ".json":
        return _without_time(json.loads(path.read_text()))
    if path.suffix == ".ckpt":
        content = torch.load(path, weights_only=True)
        loop = content.pop("loops")["fit_loop"]
        return _without_time({**content, "progress": [loop["epoch_progress"], loop["epoch_loop.batch_progress"]]})
    if path.suffix == ".yaml":
        return re.sub(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", "", path.read_text())
    return path.read_bytes()


def _all(folder: Path) -> dict[str, Any]:
    """Return the content of each file of a run without times, with paths as if the run were in the folder `home`."""
    home = str(folder.parent)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "tfevents" not in path.name]
    found = {str(path.relative_to(folder)): moved(_content(path), home, "home") for path in files}
    texts = {name: value.replace(home, "home") for name, value in found.items() if isinstance(value, str)}
    return {**found, **texts, "events": _events(folder / "tensorboard")}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Return the files of an uninterrupted run of each kind, as if it had run in the folder `run`."""
    home, done = tmp_path_factory.mktemp("unbroken"), {}

    def run(kind: str) -> dict[str, Any]:
        if kind not in done:
            folder = home / kind.replace(" ", "_") / "run"
            folder.parent.mkdir()
            _finish(kind, folder)
            done[kind] = _all(folder)
        return done[kind]

    return run


def _finish(kind: str, folder: Path) -> None:
    """Start or resume the run in `folder`, and finish it."""
    run = processes.run if kind == "two ranks" else in_process.run
    done = run([TRAIN, *RUN, *KINDS[kind], f"hydra.run.dir={folder.name}", "resume=auto"], folder.parent)
    assert done.returncode == 0, done.stderr


def _run_to_the_end(kind: str, kills: list[int], folder: Path) -> int:
    """Kill and resume a run at the given changes of its folder, then finish it; return the number of kills."""
    given = [*RUN, *KINDS[kind], f"hydra.run.dir={folder.name}", "resume=auto"]
    killed = 0
    for change in kills:
        done = processes.run(["tests.support.killed", str(change), str(folder), TRAIN, *given], folder.parent)
        killed += done.returncode == -signal.SIGKILL
    _finish(kind, folder)
    return killed


def _assert_same(found: dict[str, Any], expected: dict[str, Any], when: str) -> None:
    assert found.keys() == expected.keys(), when
    for name, content in expected.items():
        assert found[name] == content, f"{name} {when}"


@pytest.mark.exhaustive  # in the usual lane, test_resume kills a run inside of a save
@pytest.mark.parametrize(("kind", "kills"), [("plain", [40, 12])])
def test_a_killed_run_leaves_every_file_of_an_unbroken_one(
    kind: str, kills: list[int], tmp_path: Path, unbroken: Callable[[str], dict[str, Any]]
) -> None:
    """The run is killed during training, and again after it was resumed."""
    folder = tmp_path / "run"
    assert _run_to_the_end(kind, kills, folder) == len(kills)
    _assert_same(_all(folder), unbroken(kind), f"after kills at {kills}")


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_ten_kills_of_each_kind_leave_every_file(
    kind: str, tmp_path: Path, unbroken: Callable[[str], dict[str, Any]]
) -> None:
    """The kills are spread over the whole run, include the final files, and happen twice in a row."""
    expected, rng = unbroken(kind), np.random.default_rng(0)
    killed = 0
    for number in itertools.count():
        folder = tmp_path / str(number) / "run"
        folder.parent.mkdir()
        kills = sorted((int(n) for n in rng.integers(2, 110, size=2)), reverse=True)
        killed += _run_to_the_end(kind, kills, folder)
        _assert_same(_all(folder), expected, f"after kills at {kills}")
        shutil.rmtree(folder.parent)
        if killed >= 10:
            break
