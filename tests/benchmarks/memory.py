"""Memory of a training step: `python -m tests.benchmarks.memory [experiments/speed/training.md [precision]]`.

The most memory, beyond imports, of two steps of what `tests.benchmarks.training` times: network, gradients and
optimizer included. Each is measured in processes of its own: how much the system's allocator leaves unused between what
it gives differs from one to the next.
"""

from __future__ import annotations

import sys
from statistics import median

import torch
from torch import nn

from fastfcn_pl.core.tables import markdown_table
from tests.benchmarks.measure import Work, device, peak_mib
from tests.benchmarks.published import published_network
from tests.benchmarks.report import report
from tests.benchmarks.training import CLASSES, STEPS, about, batches, network_of_ours


def prepare(name: str, precision: str, size: int) -> Work:
    """Return what takes the memory."""
    with torch.device("meta"):  # imports its parts
        network_of_ours()
        if name == "published":
            published_network("encnet_r50", CLASSES)
    first = nn.Conv2d(3, 64, 3).to(device())
    first(torch.zeros(1, 3, 64, 64, device=device())).sum().backward()  # libraries set themselves up
    inputs = batches(1, size)[0]

    def work() -> None:
        step = STEPS[name](precision)
        for _ in range(2):  # from the second on, the optimizer has its state
            step(inputs)

    return work


def main(file: str | None = None, precision: str = "32-true", size: int = 480, processes: int = 5) -> str:
    """Measure, print the table, and write it into `file`."""
    found = {name: sorted(peak_mib(prepare, name, precision, size) for _ in range(processes)) for name in STEPS}
    base = median(next(iter(found.values())))
    rows = [
        [name, f"{median(of):.0f}", f"{of[0]:.0f} to {of[-1]:.0f}", f"{median(of) / base:.2f}"]
        for name, of in found.items()
    ]
    if device().type == "cuda":  # training a ResNet-50 on a CPU has no goal
        rows.append(["to be reached", "", "", "0.60"])
    heads = ["", "MiB (median)", f"of {processes} processes", "times"]
    text = f"{about(size, precision)}\n\n{markdown_table(heads, rows)}"
    command = f"REFERENCE=<checkout> python -m tests.benchmarks.memory <page> {precision}"
    report(file, f"Memory of the training step, {precision}", command, text)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:3])
