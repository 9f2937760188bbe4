"""Measurements, output and files of `benchmark`, with tiny networks."""

from __future__ import annotations

import csv
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.cost import timings
from fastfcn_pl.tools.benchmark import comparison, memory
from fastfcn_pl.tools.benchmark.command import benchmark, find_checkpoint
from fastfcn_pl.tools.train import train
from tests.conftest import TINY

NET = ["model.backbone.name=test_resnet", "model.backbone.pretrained=false", "model.head.channels=8"]
SMALL = [*NET, "model.neck.width=8", "size=[64,96]", "repeats=3", "warm_up=1", "training.size=[64,64]", "device=cpu"]
KEYS = {"parameters", "gmacs", "latency_ms", "latency_p10_ms", "latency_p90_ms", "images_per_second", "peak_mib"}
KEYS |= {"training_peak_mib", "batch", "size", "precision", "threads", "device", "versions", "parts"}


def _found(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "benchmark.json").read_text())


@pytest.mark.slow
def test_it_says_what_was_measured_and_how(
    tmp_path: Path, make_config: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    latency = benchmark(make_config(*SMALL, "memory=false", "batch=2", name="benchmark"))
    found = _found(tmp_path / "run")
    assert found.keys() >= KEYS
    assert found["latency_ms"] == latency > 0
    assert found["latency_p10_ms"] <= latency <= found["latency_p90_ms"]
    assert found["images_per_second"] == pytest.approx(2000 / latency)
    assert found["threads"] == torch.get_num_threads()
    assert (found["peak_mib"], found["training_peak_mib"]) == (None, None)
    assert list(found["parts"]) == ["backbone", "neck", "head", "labels"]  # no auxiliary head
    for key in ("parameters", "gmacs"):
        assert sum(part[key] for part in found["parts"].values()) == pytest.approx(found[key])
    with (tmp_path / "run" / "benchmark.csv").open(newline="") as file:
        assert [row["part"] for row in csv.DictReader(file)] == [*found["parts"], "total"]
    with Image.open(tmp_path / "run" / "benchmark.png") as image:
        assert image.width > 600
    said = capsys.readouterr().out
    for words in ("batch 2 of 64x96", "32-true", f"{torch.get_num_threads()} threads", "torch 2"):
        assert words in said


@pytest.mark.slow
def test_parameters_are_those_of_training_without_the_auxiliary_head(
    tmp_path: Path, make_config: Callable[..., DictConfig]
) -> None:
    counts = []
    for aux in ("fcn", "none"):
        benchmark(make_config(*SMALL, "memory=false", "repeats=1", f"model/aux_head={aux}", name="benchmark"))
        counts.append((_found(tmp_path / "run")["parameters"], _found(tmp_path / "run")["gmacs"]))
    assert counts[0] == counts[1]


def test_timings_tell_parts_apart() -> None:
    class Sleeper(nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            end = time.perf_counter() + self.seconds
            while time.perf_counter() < end:
                pass
            return x

    parts = {"short": Sleeper(0.001), "long": Sleeper(0.01), "idle": Sleeper(1.0)}
    x, calls = torch.zeros(1), []

    def run() -> None:
        calls.append(parts["long"](parts["short"](x)))

    seconds = timings(run, parts, x.device, repeats=4, warm_up=2)
    assert len(calls) == 6
    assert set(seconds) == {"short", "long", "total"}
    assert all(len(values) == 4 for values in seconds.values())
    assert min(seconds["long"]) >= 0.01
    assert all(t >= s + n for t, s, n in zip(*(seconds[k] for k in ("total", "short", "long")), strict=True))


@pytest.mark.exhaustive
def test_memory_is_what_the_process_takes(make_config: Callable[..., DictConfig]) -> None:
    """A network with known activations: training keeps what prediction frees, and its memory grows with the batch."""
    cfg = make_config(*SMALL, "size=[256,256]", "training.size=[256,256]", "training.batch=4", name="benchmark")
    cpu = torch.device("cpu")
    predicting, training = (memory.peak_mib(cfg, cpu, training=t) for t in (False, True))
    assert predicting is not None
    assert training is not None
    labels = (
        4 * 256 * 256 * cfg.num_classes * 4 / 2**20
    )  # logits at full size, in float32, of which the loss keeps some
    assert 1 < predicting < labels < training < 12 * labels


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["precision=fp16"], r"precision=fp16: no such option; choose from 16-mixed, 32-true, bf16-mixed"),
        (["device=npu3"], r"device=npu3: use auto, cpu, gpu, cuda"),
        (["checkpoint=nowhere"], r"checkpoint=nowhere: no such file"),
        (["model.neck.widht=8"], r"model\.neck\.widht"),
    ],
)
def test_a_mistake_is_one_line(
    overrides: list[str], message: str, make_config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [f"+{o}" if "widht" in o else o for o in overrides]
    with pytest.raises(UserError, match=message):
        benchmark(make_config(*SMALL, *overrides, name="benchmark"))


def test_a_speed_up_is_that_of_its_pair() -> None:
    jobs = [
        {"overrides": ["model=a", "x=1"], "gmacs": 30.0, "latency_ms": 90.0},
        {"overrides": ["model=b", "x=1"], "gmacs": 10.0, "latency_ms": 60.0},
    ]
    published = [
        {"run": "model=a", "fps": 10.0},
        {"run": "model=b", "fps": 25.0, "over": "model=a", "name": "b"},
        {"run": "model=b x=1", "over": "x=1 model=a"},
        {"run": "model=c", "over": "model=a"},
    ]
    assert comparison.speedups(published, jobs) == [["b", "3.00", "1.50", "2.50"], ["b 1 / 1 a", "3.00", "1.50", "-"]]


@pytest.mark.exhaustive
def test_a_sweep_ends_in_ratios(command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    small = [o for o in SMALL if "width" not in o]
    done = command("benchmark", "-m", *small, "memory=false", "model/neck=none", "model.backbone.output_stride=8,32,7")
    assert done.returncode == 1
    (folder,) = tmp_path.glob("runs/benchmark/*")
    with (folder / "sweep.csv").open(newline="") as file:
        jobs = list(csv.DictReader(file))
    assert [job["status"].partition(":")[0] for job in jobs] == ["done", "done", "failed"]
    rows = (folder / "sweep.md").read_text().splitlines()
    ratio = float(jobs[1]["gmacs"]) / float(jobs[0]["gmacs"])
    assert f"({ratio:.2f}x)" in rows[3]
    assert "x)" not in rows[2]
    assert (folder / "sweep.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_run_is_measured_in_its_folder(tmp_path: Path, make_config: Callable[..., DictConfig]) -> None:
    small = ["data.train_images=2", "data.val_images=1", "data.size=64", "data.batch_size=2", "data.num_workers=0"]
    train(make_config(*TINY, *small, "trainer.max_steps=1", "callbacks.cost.repeats=0"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    (tmp_path / "run" / ".hydra").mkdir()
    (tmp_path / "run" / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {model/neck: its_own}}}\n")
    cfg = make_config("size=[64,64]", "repeats=2", "memory=false", f"checkpoint={tmp_path}/run", name="benchmark")
    cfg.run_dir = str(tmp_path / "other")
    benchmark(cfg)
    found = _found(tmp_path / "run")
    assert found == _found(tmp_path / "other")
    assert found["num_classes"] == 8
    assert found["choices"] == {"model/neck": "its_own"}
    auxiliary = results["parameters"] - found["parameters"]
    assert 0 < auxiliary < results["parameters"] / 2
    assert find_checkpoint(f"{tmp_path}/run/checkpoints/last.ckpt")[1] == tmp_path / "run"
    with pytest.raises(UserError, match="no checkpoints/best"):
        find_checkpoint(str(tmp_path / "other"))
