"""Latency, memory and size of a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from fastfcn_pl.acceleration.cuda_graph import CALLS_BEFORE_RECORDING
from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.acceleration.training import memory_format
from fastfcn_pl.config import build, validation
from fastfcn_pl.config.stored_config import storable_config
from fastfcn_pl.core import provenance
from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.redaction import without_secrets
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import hydra_job, match, startup_messages
from fastfcn_pl.engine.checkpoint import Checkpoint
from fastfcn_pl.engine.checkpoint_location import locate
from fastfcn_pl.models.cost import cost, timings
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.ops import fast_paths
from fastfcn_pl.tools.benchmark import comparison, memory
from fastfcn_pl.tools.device import autocast_dtype, find_device

FILE = "benchmark.json"


def benchmark(cfg: DictConfig) -> float:
    """Measure a network, write and print the measurement, and return the latency in ms."""
    autocast_dtype(cfg.precision)  # a mistake in it is known before the network is built
    device = find_device(cfg.device)
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={cfg.device}: only cpu and cuda can be timed")
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    if cfg.checkpoint is None:
        build.without_pretrained(cfg)
        validation.check(cfg)
        network, run_folder = build.model(cfg, cfg.num_classes), None
        choices = hydra_job.choices()
    else:
        path, run_folder = find_checkpoint(cfg.checkpoint)
        cfg, network = _load_network(cfg, path)
        choices = hydra_job.choices(str(run_folder)) if run_folder is not None else {}
    startup_messages.step("benchmark: measuring")
    measurement = measure(cfg, network, device, choices)
    for folder in filter(None, (cfg.run_dir, run_folder)):
        with atomic_write(Path(folder, FILE)) as hidden:
            hidden.write_text(json.dumps(measurement, indent=2) + "\n")
    comparison.show_one(measurement, Path(cfg.run_dir))
    if run_folder is not None:
        print(f"also written to {Path(run_folder, FILE)}")
    return measurement["latency_ms"]


def measure(
    cfg: DictConfig, network: Segmenter, device: torch.device, choices: dict[str, str]
) -> comparison.Measurement:
    """Return the measurement of `network`, for `benchmark.json`, with the options `choices` that it was built from.

    `parameters` and `gmacs` (of one image) are counted before batch norms are folded, without the auxiliary head.
    Latency is that of the network that `predict` runs, from normalised images to labels. `parts` has the latency of
    each part; its entry `labels` is upsampling and argmax. On a GPU, parts are timed without the CUDA graph, which runs
    all of them at once, and add up to more than the latency. `images_per_second` is the batch over the median latency.
    For the memory see `memory.peak_mib`.
    """
    size, form = tuple(cfg.size), memory_format(cfg.channels_last)
    network.aux_head = None
    costs = cost(network, size)
    total = costs.pop("total")
    network.to(device).to(memory_format=form)
    x = torch.randn(cfg.batch, network.in_chans, *size, device=device).contiguous(memory_format=form)
    options = {"device": device, "dtype": autocast_dtype(cfg.precision), "accelerate": cfg.accelerate}
    with fast_paths.without("cuda graph"):
        optimized = optimize_for_inference(network, **options)
    children = {name: part for name, part in optimized.named_children() if name in costs}
    times = timings(lambda: memory.labels(optimized, x), children, device, cfg.repeats, cfg.warm_up)
    milliseconds = {name: 1000 * np.array(values) for name, values in times.items()}
    whole = milliseconds.pop("total")
    milliseconds["labels"] = whole - sum(milliseconds.values())
    if device.type == "cuda":
        recorded = optimize_for_inference(network, **options)
        warm_up = max(cfg.warm_up, CALLS_BEFORE_RECORDING + 1)
        times = timings(lambda: memory.labels(recorded, x), {}, device, cfg.repeats, warm_up)
        whole = 1000 * np.array(times["total"])
    p10, median, p90 = np.percentile(whole, (10, 50, 90)).tolist()
    measures_training = cfg.memory and cfg.training is not None
    parts = {
        name: {
            "parameters": costs[name].parameters if name in costs else 0,
            "gmacs": costs[name].gmacs if name in costs else 0.0,
            "latency_ms": float(np.median(values)),
        }
        for name, values in milliseconds.items()
    }
    environment = provenance.environment()
    return {
        "parameters": total.parameters,
        "gmacs": total.gmacs,
        "latency_ms": median,
        "latency_p10_ms": p10,
        "latency_p90_ms": p90,
        "images_per_second": 1000 * cfg.batch / median,
        "peak_mib": memory.peak_mib(cfg, device, training=False) if cfg.memory else None,
        "training_peak_mib": memory.peak_mib(cfg, device, training=True) if measures_training else None,
        "batch": cfg.batch,
        "size": list(size),
        "training": storable_config(cfg)["training"],
        "precision": cfg.precision,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else environment["processor"],
        "channels_last": cfg.channels_last,
        "accelerate": cfg.accelerate,
        "num_classes": cfg.num_classes,
        "warm_up": cfg.warm_up,
        "repeats": cfg.repeats,
        "checkpoint": cfg.checkpoint,
        "choices": choices,
        "overrides": without_secrets(hydra_job.overrides()),
        "commit": environment["commit"],
        "versions": environment["versions"] | ({"cuda": torch.version.cuda} if device.type == "cuda" else {}),
        "parts": parts,
        **match.results(cfg),
    }


def find_checkpoint(path: str) -> tuple[Path, Path | None]:
    """Return the checkpoint that `path` names, and the run's folder, or None."""
    checkpoint = locate(path)
    return checkpoint, checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else None


def _load_network(cfg: DictConfig, path: Path) -> tuple[DictConfig, Segmenter]:
    """Return the network of the checkpoint at `path`, and `cfg` with the checkpoint's settings of the network."""
    trained = Checkpoint.read(path, cfg.trust)
    run = trained.parts(*build.TO_PREDICT)
    cfg = cfg.copy()
    cfg.num_classes = trained.spec.num_classes
    for name in ("model", "channels_last"):
        cfg[name] = run[name]
    return cfg, trained.build(run).model
