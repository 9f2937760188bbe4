"""Upsampling and cross entropy, with gradient: `python -m tests.benchmarks.loss [experiments/speed/training.md]`.

By bands of rows, as `fastfcn_pl.losses.cross_entropy` has it, against `F.interpolate` and `F.cross_entropy`.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.core.types import IGNORE
from fastfcn_pl.losses.cross_entropy import CrossEntropy
from tests.benchmarks.measure import Work, device, difference, machine, medians, peak_mib
from tests.benchmarks.report import report

NAMES = {"plain": "F.interpolate, F.cross_entropy", "ours": "by kernels" if device().type == "cuda" else "by bands"}
_OURS = CrossEntropy(class_weights=None, label_smoothing=0.0)


def batch(classes: int, size: int) -> tuple[Tensor, Tensor]:
    """Return logits at stride 8 and labels of two images, a tenth of them ignored."""
    rng = torch.Generator().manual_seed(0)
    target = torch.randint(0, classes, (2, size, size), generator=rng, dtype=torch.uint8)
    target[torch.rand(2, size, size, generator=rng) < 0.1] = IGNORE
    return (3 * torch.randn(2, classes, size // 8, size // 8, generator=rng)).to(device()), target.to(device())


def plain(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean over labelled pixels, by the formula."""
    full = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=True)
    return F.cross_entropy(full, target.long(), ignore_index=IGNORE)


def ours(logits: Tensor, target: Tensor) -> Tensor:
    """Return the same as it is trained with."""
    loss: Tensor = _OURS(logits, target, True)
    return loss


def step(name: str, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return value and gradient."""
    logits = logits.detach().requires_grad_()
    value = (plain if name == "plain" else ours)(logits, target)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def prepare(name: str, classes: int, size: int) -> Work:
    """Return what takes the memory."""
    step(name, *batch(classes, 16))  # libraries set themselves up
    return partial(step, name, *batch(classes, size))


def main(file: str | None = None, classes: int = 150, size: int = 480, rounds: int = 9) -> str:
    """Measure, print the table, and write it into `file`."""
    inputs = batch(classes, size)
    plain = step("plain", *inputs)
    seconds = medians({name: partial(step, name, *inputs) for name in NAMES}, rounds)
    memory = {name: peak_mib(prepare, name, classes, size) for name in NAMES}
    rows = []
    for name, title in NAMES.items():
        apart = [f"{difference(one, other):.1e}" for one, other in zip(step(name, *inputs), plain, strict=True)]
        ratios = [f"{seconds[name] / seconds['plain']:.2f}", f"{memory[name] / memory['plain']:.3f}"]
        rows.append([title, f"{1e3 * seconds[name]:.3g}", ratios[0], f"{memory[name]:.0f}", ratios[1], *apart])
    rows.append(["to be reached", "", "0.40", "", "0.100", "1e-06", "1e-06"])
    text = (
        f"2 images of {classes} classes, logits {size // 8}x{size // 8}, labels {size}x{size}, float32. {machine()}\n"
    )
    text += "Differences are shares of the largest number.\n\n"
    text += markdown_table(["", "ms", "times", "MiB", "times", "value differs by", "gradient by"], rows)
    report(file, "Upsampling and cross entropy", "python -m tests.benchmarks.loss", text)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:2])
