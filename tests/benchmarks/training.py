"""A training step of EncNet + JPU, ResNet-50: `python -m tests.benchmarks.training [page.md [precision [batch]]]`.

A batch of two or of `batch` images of 480x480, 150 classes, auxiliary head and SE loss, SGD with the paper's groups,
dropout off. With REFERENCE=<a checkout of wuhuikai/FastFCN> its own network and loss take turns with ours.
`precision` is one of Lightning's; processors that do not have `bf16-mixed` emulate it, and take ten times as long.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from fastfcn_pl.acceleration.training import optimize_for_training
from fastfcn_pl.config import build
from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.models.segmenter import Segmenter
from fastfcn_pl.models.weights import official
from fastfcn_pl.models.weights.rename import rename
from fastfcn_pl.tools.device import autocast_dtype
from tests.benchmarks.measure import Work, device, machine, medians
from tests.benchmarks.published import checkout, published_network
from tests.benchmarks.report import report

BATCH, CLASSES = 2, 150
Batch = tuple[Tensor, Tensor]
Step = Callable[[Batch], Tensor]
"""Trains on a batch and returns the loss that there was before."""
_CFG = ["model=fastfcn_encnet_r50", "model.backbone.pretrained=false"]


def batches(count: int, size: int, images: int = BATCH) -> list[Batch]:
    """Return images and labels, a tenth of which is ignored."""
    rng, shape = torch.Generator().manual_seed(1), (images, size, size)
    made = []
    for _ in range(count):
        target = torch.randint(0, CLASSES, shape, generator=rng, dtype=torch.uint8)
        target[torch.rand(shape, generator=rng) < 0.1] = IGNORE
        made.append((torch.randn(images, 3, size, size, generator=rng), target))
    return made


def network_of_ours() -> Segmenter:
    """Return our network, with random weights and without dropout, so that it computes what the published one does."""
    network = build.model(build.compose(_CFG), CLASSES)
    _turn_off_dropout(network)
    return network


def ours(precision: str, state: dict[str, Tensor] | None = None) -> Step:
    """Return our step, by the recipe, from random weights or from the published network's `state`."""
    network = network_of_ours()
    if state is not None:
        renamed, _ = rename(state, official.rules("encnet"))
        network.load_state_dict(renamed)
    return training_step(network, build.compose(_CFG), precision, BATCH)


def _autocast(precision: str) -> torch.autocast:
    dtype = autocast_dtype(precision)
    return torch.autocast(device().type, dtype, enabled=dtype is not None)


def training_step(network: Segmenter, cfg: DictConfig, precision: str, images: int) -> Step:
    """Return a step of `network` with the loss, optimizer and memory format of `cfg`, for batches of `images`."""
    network = network.to(device()).train()
    options = {"precision": precision, "channels_last": cfg.channels_last}
    memory_format = optimize_for_training(network, device=device(), **options)
    loss, optimizer = build.build(cfg.loss, network.outputs), build.build(cfg.optimizer)(network, images)

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        inputs, target = batch[0].to(device()).contiguous(memory_format=memory_format), batch[1].to(device())
        with _autocast(precision):
            total, _ = loss(network(inputs), target, network.align_corners)
        return _learn(optimizer, total)

    return step


def published(precision: str, state: dict[str, Tensor] | None = None) -> Step:
    """Return the published step, with the learning rates of ours."""
    network = published_network("encnet_r50", CLASSES).to(device()).train()
    _turn_off_dropout(network)
    if state is not None:
        network.load_state_dict(state)
    losses = importlib.import_module("encoding.nn").SegmentationLosses
    cfg = build.compose(_CFG)
    weights = {"aux_weight": cfg.loss.terms.aux_cross_entropy.weight, "se_weight": cfg.loss.terms.se.weight}
    criterion = losses(se_loss=True, aux=True, nclass=CLASSES, **weights)
    rate = cfg.optimizer.lr * BATCH / cfg.optimizer.base_batch_size
    parts = {"pretrained": 1, "jpu": 10, "head": 10, "auxlayer": 10}
    groups = [{"params": getattr(network, name).parameters(), "lr": rate * by} for name, by in parts.items()]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4)

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        images, target = batch[0].to(device()), batch[1].to(device()).long()

        def outputs() -> list[Tensor]:
            with _autocast(precision):
                return [out if out.dtype == torch.float64 else out.float() for out in network(images)]

        # Outside of autocast, where a GPU's refuses its binary cross entropy; kept by no name, which would take memory.
        return _learn(optimizer, criterion(*outputs(), torch.where(target == IGNORE, -1, target)))

    return step


def _learn(optimizer: torch.optim.Optimizer, total: Tensor) -> Tensor:
    total.backward()
    optimizer.step()
    return total.detach()


def _turn_off_dropout(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0


STEPS: dict[str, Callable[..., Step]] = {"ours": ours}
if checkout() is not None:
    STEPS = {"published": published, **STEPS}


def main(
    file: str | None = None,
    precision: str = "32-true",
    images: int = BATCH,
    size: int = 480,
    rounds: int = 5,
) -> str:
    """Measure, print the table, and write it into `file`."""
    torch.manual_seed(0)
    x, target = batches(1, size, images)[0]
    inputs = x.to(device()), target.to(device())
    seconds = medians({name: _on(make(precision), inputs) for name, make in STEPS.items()}, rounds)
    base = next(iter(STEPS))
    rows = [[name, f"{1e3 * of:.0f}", f"{seconds[base] / of:.2f}"] for name, of in seconds.items()]
    if device().type == "cuda":  # training a ResNet-50 on a CPU has no goal
        rows.append(["to be reached", "", "2.00" if "16" in precision else "1.50"])
    text = f"{about(size, precision, images)}\n\n{markdown_table(['', 'ms a step', 'times as fast'], rows)}"
    command = f"REFERENCE=<checkout> python -m tests.benchmarks.training <page> {precision} {images}"
    report(file, f"Training step of {images} images, {precision}", command, text)
    return text


def about(size: int, precision: str, images: int = BATCH) -> str:
    """Return what is trained, and where, in a line."""
    return f"{images} images of {size}x{size}, {CLASSES} classes, {precision}. {machine()}"


def _on(step: Step, inputs: Batch) -> Work:
    return lambda: step(inputs)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
