"""Latency, memory and size of a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from fastfcn_pl.acceleration.fold import fold
from fastfcn_pl.acceleration.training import memory_format
from fastfcn_pl.config import build, validation
from fastfcn_pl.config.stored_config import storable_config
from fastfcn_pl.core import provenance
from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.redaction import without_secrets
from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.engine import launch, startup_messages
from fastfcn_pl.engine.checkpoint import Checkpoint
from fastfcn_pl.models.cost import cost, timings
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.tools.benchmark import comparison, memory
from fastfcn_pl.tools.precision import PRECISIONS, autocast

FILE = "benchmark.json"


def benchmark(cfg: DictConfig) -> float:
    """Measure the network that `cfg` describes, write and print what was found, and return the latency in ms."""
    if cfg.precision not in PRECISIONS:
        raise UserError(f"precision={cfg.precision}: no such option; {suggest(cfg.precision, PRECISIONS)}")
    device = _device(cfg.device)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    if cfg.checkpoint is None:
        build.without_pretrained(cfg)
        validation.check(cfg)
        network, run_folder = build.model(cfg, cfg.num_classes), None
    else:
        path, run_folder = checkpoint_of(cfg.checkpoint)
        cfg, network = _trained(cfg, path)
    startup_messages.step("benchmark: measuring")
    found = measure(cfg, network, device)
    for folder in filter(None, (cfg.run_dir, run_folder)):
        with atomic_write(Path(folder, FILE)) as hidden:
            hidden.write_text(json.dumps(found, indent=2) + "\n")
    comparison.show_one(found, Path(cfg.run_dir))
    if run_folder is not None:
        print(f"{Path(run_folder, FILE)} is written, too")
    return found["latency_ms"]


def measure(cfg: DictConfig, network: Segmenter, device: torch.device) -> dict[str, Any]:
    """Return what `benchmark.json` holds about `network`.

    `parameters` are those it was trained with, but for the auxiliary head's, and `gmacs` are of one image; both are
    counted before batch norms are folded. Latency is from normalised images to labels, of what `acceleration.fold`
    makes of it: all of it, and in `parts` that of its parts; what comes behind the head (upsampling and argmax) is
    `labels`. `images_per_second` is the batch over the median latency. For memory see `footprint.peak_mib`.
    """
    size, form = tuple(cfg.size), memory_format(cfg.channels_last)
    network.aux_head = None
    costs = cost(network, size)
    total = costs.pop("total")
    shipped = fold(network, accelerate=cfg.accelerate).to(device).to(memory_format=form)
    x = torch.randn(cfg.batch, 3, *size, device=device).contiguous(memory_format=form)
    with autocast(device, cfg.precision):
        children = {name: part for name, part in shipped.named_children() if name in costs}
        times = timings(lambda: memory.labels(shipped, x), children, device, cfg.repeats, cfg.warm_up)
    milliseconds = {name: 1000 * np.array(values) for name, values in times.items()}
    whole = milliseconds.pop("total")
    milliseconds["labels"] = whole - sum(milliseconds.values())
    p10, median, p90 = np.percentile(whole, (10, 50, 90)).tolist()
    predicts, trains = cfg.memory, cfg.memory and cfg.training is not None
    parts = {
        name: {
            "parameters": costs[name].parameters if name in costs else 0,
            "gmacs": costs[name].gmacs if name in costs else 0.0,
            "latency_ms": float(np.median(values)),
        }
        for name, values in milliseconds.items()
    }
    about = provenance.environment()
    return {
        "parameters": total.parameters,
        "gmacs": total.gmacs,
        "latency_ms": median,
        "latency_p10_ms": p10,
        "latency_p90_ms": p90,
        "images_per_second": 1000 * cfg.batch / median,
        "peak_mib": memory.peak_mib(cfg, device, training=False) if predicts else None,
        "training_peak_mib": memory.peak_mib(cfg, device, training=True) if trains else None,
        "batch": cfg.batch,
        "size": list(size),
        "training": storable_config(cfg)["training"],
        "precision": cfg.precision,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else about["processor"],
        "channels_last": cfg.channels_last,
        "accelerate": cfg.accelerate,
        "num_classes": cfg.num_classes,
        "warm_up": cfg.warm_up,
        "repeats": cfg.repeats,
        "checkpoint": cfg.checkpoint,
        "choices": launch.choices(),
        "overrides": without_secrets(launch.overrides()),
        "commit": about["commit"],
        "versions": about["versions"] | ({"cuda": torch.version.cuda} if device.type == "cuda" else {}),
        "parts": parts,
    }


def checkpoint_of(path: str) -> tuple[Path, Path | None]:
    """Return the checkpoint that `path` is or, if it is a run's folder, has; and the run's folder, if it is in one."""
    found = Path(path)
    if found.is_dir():
        results = found / "results.json"
        best = found / "checkpoints" / "best.ckpt"
        try:
            named = Path(json.loads(results.read_text())["checkpoint"]) if results.is_file() else best
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"checkpoint={path}: {results} names none; give the file in its checkpoints/") from error
        found = found / "checkpoints" / named.name  # the folder may have been moved
        if not found.is_file():
            raise UserError(f"checkpoint={path}: the folder has no {found.relative_to(path)}; give a run's folder")
    return found, found.parents[1] if found.parent.name == "checkpoints" else None


def _trained(cfg: DictConfig, path: Path) -> tuple[DictConfig, Segmenter]:
    """Return `cfg` with what it says of the network as the checkpoint at `path` has it, and its network."""
    trained = Checkpoint.read(path, cfg.trust)
    run = trained.parts(*build.TO_PREDICT)
    cfg = cfg.copy()
    cfg.num_classes = trained.spec.num_classes
    for name in ("model", "channels_last"):
        cfg[name] = run[name]
    return cfg, trained.build(run).model


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name}: use auto, cpu, cuda or cuda:<number>") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise UserError(f"device={name}: torch does not find it on this machine; use cpu")
    return device
