"""Peak memory of a network, including its weights, in prediction and in training.

It is measured in a new process: in a process that has freed memory before, reuse of that memory would not be seen.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.inference import optimize_for_inference
from fastfcn_pl.acceleration.training import memory_format, optimize_for_training
from fastfcn_pl.config import build
from fastfcn_pl.core.types import UserError
from fastfcn_pl.evaluation.score_map import ScoreMap
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.tools.device import autocast_dtype


def labels(network: Segmenter, x: Tensor) -> Tensor:
    """Return class indices `(B, H, W)` of normalised images `(B, C, H, W)`, computed as in `predict`."""
    with torch.no_grad():
        return ScoreMap.of(network(x).logits).resized((x.shape[-2], x.shape[-1]), network.align_corners).labels()


def peak_mib(cfg: build.Config, device: torch.device, training: bool) -> float | None:
    """Return the peak memory in MiB of predicting a batch of `cfg.size`, or of `training` on a batch of `cfg.training`.

    On a GPU it is torch's `max_memory_allocated`: all tensors, and the workspaces that libraries request from torch.
    On a CPU it is the increase of resident memory over a process that has imported and initialised all libraries. This
    includes workspaces and memory that malloc keeps. It is known on Linux only, and None on other systems.

    Training takes two steps on random labels, since the optimizer's state exists from the second step on.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            resolved = build.configuration(build.plain(cfg))  # the new process has no resolvers
            return pool.submit(_peak_mib, resolved, str(device), training).result()
        except (BrokenProcessPool, torch.OutOfMemoryError) as error:
            setting = f"training.batch={cfg.training.batch}" if training else f"batch={cfg.batch}"
            raise UserError(f"{setting}: not enough memory; lower it, or set memory=false") from error


def _peak_mib(cfg: build.Config, name: str, training: bool) -> float | None:
    device = torch.device(name)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    with torch.device("meta"):
        build.model(cfg, cfg.num_classes)  # import the modules of its parts
    warm_up = nn.Conv2d(3, 64, 3).to(device)
    warm_up(torch.zeros(1, 3, 64, 64, device=device)).sum().backward()  # initialise libraries
    before = _resident("VmRSS")
    (_train if training else _predict)(cfg, device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = _resident("VmHWM")
    return None if before is None or peak is None else (peak - before) / 2**20


def _predict(cfg: build.Config, device: torch.device) -> None:
    form = memory_format(cfg.channels_last)
    network = build.model(cfg, cfg.num_classes).to(device).to(memory_format=form)
    network = optimize_for_inference(
        network, device=device, dtype=autocast_dtype(cfg.precision), accelerate=cfg.accelerate
    )
    x = torch.randn(cfg.batch, network.in_chans, *cfg.size, device=device).contiguous(memory_format=form)
    labels(network, x)


def _train(cfg: build.Config, device: torch.device) -> None:
    network = build.model(cfg, cfg.num_classes).to(device).train()
    options = {"channels_last": cfg.channels_last, "accelerate": cfg.accelerate}
    form = optimize_for_training(network, device=device, precision=cfg.precision, **options)
    loss = build.build(cfg.loss, network.outputs)
    batch, size, dtype = cfg.training.batch, cfg.training.size, autocast_dtype(cfg.precision)
    optimizer = build.build(cfg.optimizer)(network, batch)
    x = torch.randn(batch, network.in_chans, *size, device=device).contiguous(memory_format=form)
    target = torch.randint(0, cfg.num_classes, (batch, *size), dtype=torch.uint8, device=device)
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            total, _terms = loss(network(x), target, network.align_corners)
        total.backward()
        optimizer.step()


def _resident(field: str) -> int | None:
    """Return the resident memory of this process in bytes: current (`VmRSS`) or peak (`VmHWM`)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 2**10 for line in lines if line.startswith(f"{field}:")), None)
