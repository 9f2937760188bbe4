"""Throughput of training on two ranks against one, at equal global batches, on this machine's CPU.

`python -m tests.benchmarks.ranks` trains the quickstart's network on generated pictures of 256x256, a batch of 16
images on one rank and of 8 on each of two, in turns, and writes the table into experiments/cluster.md. One rank
computes with all cores, two share them.
"""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.report import table, write

FILE = Path(__file__).parents[2] / "experiments" / "cluster.md"
ROUNDS, BATCH, STEPS = 3, 16, 40
RUN = ["logger=none", "trainer.accelerator=cpu", "data.size=256", "trainer.max_epochs=1", f"trainer.max_steps={STEPS}"]
RUN += [f"data.train_images={BATCH * STEPS}", "data.val_images=2", "data.num_workers=0", "trainer.log_every_n_steps=5"]
RUN += ["~callbacks.cost", "~callbacks.progress", "callbacks.last.every_n_steps=null"]


def images_per_second(ranks: int) -> float:
    """Return the median over a run of `ranks` ranks, its first logs left out."""
    with tempfile.TemporaryDirectory() as folder:
        given = [*RUN, f"trainer.devices={ranks}", f"data.batch_size={BATCH // ranks}", f"hydra.run.dir={folder}/run"]
        subprocess.run(
            [sys.executable, "-m", "fastfcn_pl.train", "-cn", "quickstart", *given],
            check=True,
            stdout=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        )
        with Path(folder, "run", "metrics", "metrics.csv").open(newline="") as file:
            rates = [
                float(row["train/images_per_second"]) for row in csv.DictReader(file) if row["train/images_per_second"]
            ]
    return statistics.median(rates[2:])


def main() -> None:
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for ranks, rates in found.items():
            rates.append(images_per_second(ranks))
            print(f"{ranks} ranks: {rates[-1]:.1f} images/s", flush=True)
    one = statistics.median(found[1])
    rows = [
        [str(ranks), str(BATCH // ranks), f"{statistics.median(rates):.1f}", f"{statistics.median(rates) / one:.2f}x"]
        for ranks, rates in found.items()
    ]
    text = table(["ranks", "batch of each", "images/s", "against one"], rows)
    write(FILE, "Two ranks against one", "python -m tests.benchmarks.ranks", text)
    print(text)


if __name__ == "__main__":
    main()
