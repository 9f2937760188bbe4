"""Folders of training runs as `fastfcn_pl.train` leaves them, finished, going on or failed, without any training."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.evaluation.visualize import METADATA_KEY, comparison

CLASSES = ("sky", "car, <parked>", "a|b")
SPEC = DatasetSpec("fake", CLASSES, ((70, 130, 180), (220, 20, 60), (0, 128, 0)))
_CHOICES = {"data": "camvid", "model": "fastfcn", "model/neck": "jpu", "model/head": "fcn", "protocol": "native"}


def write_run(
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    seed: int = 0,
    study: str = "neck_ablation",
    score: float | None = 0.5,
    steps: int = 40,
    data: str = "camvid",
    images: int = 101,
    latency_ms: float = 100.0,
    gmacs: float = 5.0,
    overlays: int = 0,
    multirun: bool = True,
    counts: np.ndarray | None = None,
    **config: Any,
) -> Path:
    """Write a run that reached `score`, or is going on where that is None, and return its folder."""
    choices = {**_CHOICES, "data": data}
    tree: dict[str, Any] = {
        "data": {"batch_size": 4, "root": "/data"},
        "model": {"neck": {"_target_": "fastfcn_pl.models.necks.jpu.JPU", "width": 128}},
        "optimizer": {"lr": 0.01},
        "trainer": {"max_epochs": 10, "max_steps": -1},
        "protocol": {"_target_": "fastfcn_pl.evaluation.protocols.native", "_partial_": True},
        "seed": seed,
        "question": "Does <JPU> cost less?",
        "published": None,
        **config,
    }
    for override in overrides:
        key, _, value = override.partition("=")
        if key in choices or "/" in key:
            choices[key] = value
        else:
            *parents, last = key.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = yaml.safe_load(value)
    hydra = _hydra(study, [*overrides, f"seed={seed}"], choices, multirun)
    _yaml(folder / ".hydra" / "config.yaml", tree)
    _yaml(folder / ".hydra" / "hydra.yaml", {"hydra": hydra})
    _metrics(folder / "metrics" / "metrics.csv", steps, score or 0.3)
    about = {
        "commit": "0123abcd",
        "versions": {"python": "3.11.7", "torch": "2.14.1"},
        "processor": "2 x Fake Processor",
    }
    cost = {"parameters": 4_000_000, "gmacs": gmacs, "latency_ms": latency_ms, "peak_mib": 20.0, "size": [512, 512]}
    _yaml(folder / "metrics" / "hparams.yaml", {**about, **{k: v for k, v in cost.items() if k != "size"}})
    if score is not None:
        results = {
            "data": data,
            "split": "val",
            "protocol": "native",
            "protocol_options": {},
            "mIoU": score,
            "pixel_accuracy": 0.9,
            "mean_accuracy": 0.6,
            "IoU": dict(zip(CLASSES, (score + 0.2, score, score - 0.2), strict=True)),
            "share": dict(zip(CLASSES, (0.5, 0.3, 0.2), strict=True)),
            "world_size": 1,
            "images": images,
            "parameters": cost["parameters"],
            "gmacs": gmacs,
            "cost": cost,
            "steps": steps,
            "epochs": 10,
            "seed": seed,
            "train_seconds": 90.0,
            "choices": choices,
            **about,
        }
        (folder / "results.json").write_text(json.dumps(results))
        if counts is not None:
            np.savez_compressed(folder / "images.npz", counts=counts, position=np.arange(len(counts)))
    for i in range(overlays):
        _overlay(folder / "overlays" / f"{i}.png", i, seed)
    return folder


def write_sweep(folder: Path, necks: Sequence[str], seeds: Sequence[int], **settings: Any) -> Path:
    """Write the folder of a sweep over necks and seeds, a better score for an earlier neck, and return it."""
    given = [f"model/neck={','.join(necks)}", f"seed={','.join(map(str, seeds))}"]
    _yaml(folder / "multirun.yaml", {"hydra": _hydra("neck_ablation", given, _CHOICES, True)})
    jobs = [(neck, seed) for neck in necks for seed in seeds]
    for number, (neck, seed) in enumerate(jobs):
        rank = necks.index(neck)
        write_run(
            folder / str(number),
            overrides=[f"model/neck={neck}"],
            seed=seed,
            score=0.7 - 0.05 * rank + 0.01 * seed,
            latency_ms=50.0 + 30 * rank,
            gmacs=3.0 + rank,
            **settings,
        )
    return folder


def write_benchmark(folder: Path, *, model: str, latency_ms: float, gmacs: float, **config: Any) -> Path:
    """Write what `benchmark` leaves of one network of a sweep, and return its folder."""
    _yaml(folder / ".hydra" / "config.yaml", {"model": {"width": 8}, "batch": 1, **config})
    overrides = [f"model={model}", *(f"match.what={m['what'] or 'null'}" for m in [config.get("match")] if m)]
    hydra = _hydra("paper_speed", overrides, {"model": model}, True, "benchmark")
    _yaml(folder / ".hydra" / "hydra.yaml", {"hydra": hydra})
    part = {"parameters": 10, "gmacs": gmacs / 2, "latency_ms": latency_ms / 2}
    found = {
        "parameters": 40_000_000,
        "gmacs": gmacs,
        "latency_ms": latency_ms,
        "latency_p10_ms": latency_ms - 1,
        "latency_p90_ms": latency_ms + 1,
        "peak_mib": 300.0,
        "training_peak_mib": None,
        "batch": 1,
        "size": [512, 512],
        "training": None,
        "precision": "32-true",
        "threads": 2,
        "device": "2 x Fake Processor",
        "repeats": 5,
        "overrides": overrides,
        "commit": "0123abcd",
        "versions": {"torch": "2.14.1"},
        "parts": {"backbone": part, "labels": part},
    }
    (folder / "benchmark.json").write_text(json.dumps(found))
    return folder


def _hydra(study: str, task: list[str], choices: dict[str, str], multirun: bool, name: str = "train") -> dict[str, Any]:
    return {
        "job": {"name": name, "config_name": study},
        "overrides": {"hydra": ["hydra.mode=MULTIRUN"] if multirun else [], "task": task},
        "runtime": {
            "choices": {**choices, "hydra/launcher": "basic"},
            "config_sources": [
                {"path": "/elsewhere/conf", "provider": "main"},
                {"path": "/elsewhere/experiments", "provider": "command-line"},
            ],
        },
    }


def _metrics(file: Path, steps: int, score: float) -> None:
    """Write a line every four steps and two validations, each with the columns of all, as Lightning does."""
    file.parent.mkdir(parents=True)
    columns = ["epoch", "step", "train/loss", "val/mIoU", *(f"val/IoU/{name}" for name in CLASSES)]
    with file.open("w", newline="") as opened:
        table = csv.DictWriter(opened, columns, restval="")
        table.writeheader()
        for step in range(3, steps, 4):
            table.writerow({"epoch": step // 4, "step": step, "train/loss": 2 / (1 + step)})
        for step, share in ((steps // 2, 0.8), (steps - 1, 1.0)):
            values = {f"val/IoU/{name}": score * share for name in CLASSES}
            table.writerow({"epoch": step // 4, "step": step, "val/mIoU": score * share, **values})


def _overlay(file: Path, number: int, seed: int) -> None:
    """Write one image's comparison, whose prediction differs from run to run and whose image does not."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(number).integers(0, 255, (24, 32, 3), np.uint8)
    target = np.repeat(np.arange(24) // 8, 32).reshape(24, 32).astype(np.uint8)
    prediction = np.roll(target, 1 + seed, axis=0)
    about = PngInfo()
    about.add_text(
        METADATA_KEY, json.dumps({"height": 24 * 6, "colors": dict(zip(SPEC.classes, SPEC.palette, strict=True))})
    )
    Image.fromarray(comparison(image, target, prediction, SPEC)).save(file, pnginfo=about)


def _yaml(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))
