"""Throughput of training on two ranks against one, at equal global batches, on the two CPU cores of this machine.

`python -m tests.benchmarks.ranks` trains the quickstart's network on generated pictures of 128x128, a batch of 16
images on one rank and of 8 on each of two, in turns, and writes the table into experiments/cluster/README.md.
A rank has as many threads as it has cores to itself; one rank with a single thread shows what the second core is worth.
"""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from fastfcn_pl.core.provenance import environment
from fastfcn_pl.core.tables import markdown_table
from tests.benchmarks.report import report

FILE = Path(__file__).parents[2] / "experiments" / "cluster" / "README.md"
ROUNDS, BATCH, STEPS = 3, 16, 15
CASES = ((1, 1), (1, 2), (2, 1))
"""Ranks, and threads of each: two ranks on two cores have one each by themselves, one rank has both."""
TEXT = """\
On {processor}: images a second, the median of {rounds} runs in turns (and the lowest to the highest), of the
quickstart's network at 128x128, a global batch of {batch}. The last two rows use both cores: threads share each
operation, ranks share the batch and exchange gradients after each step. A second device is not measured here.
"""
RUN = ["logger=none", "trainer.accelerator=cpu", "data.size=128", "trainer.max_epochs=1", f"trainer.max_steps={STEPS}"]
RUN += [f"data.train_images={BATCH * STEPS}", "data.val_images=2", "data.num_workers=0", "trainer.log_every_n_steps=3"]
RUN += ["~callbacks.cost", "~callbacks.progress", "callbacks.last.every_n_steps=null"]


def images_per_second(ranks: int, threads: int) -> float:
    """Return the median over a run of `ranks` ranks of so many threads, its first logs left out."""
    with tempfile.TemporaryDirectory() as folder:
        given = [*RUN, f"trainer.devices={ranks}", f"data.batch_size={BATCH // ranks}", f"hydra.run.dir={folder}/run"]
        subprocess.run(
            [sys.executable, "-m", "fastfcn_pl.train", "-cn", "quickstart", *given],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        with Path(folder, "run", "metrics", "metrics.csv").open(newline="") as file:
            rates = [
                float(row["train/images_per_second"]) for row in csv.DictReader(file) if row["train/images_per_second"]
            ]
    return statistics.median(rates[2:])


def main() -> None:
    found: dict[tuple[int, int], list[float]] = {case: [] for case in CASES}
    for _ in range(ROUNDS):
        for case, rates in found.items():
            rates.append(images_per_second(*case))
            print(f"{case[0]} ranks of {case[1]} threads: {rates[-1]:.1f} images/s", flush=True)
    one = statistics.median(found[1, 2])
    rows = [
        [str(ranks), str(threads), str(BATCH // ranks), f"{statistics.median(rates):.1f}",
         f"{min(rates):.1f} to {max(rates):.1f}", f"{statistics.median(rates) / one:.2f}x"]
        for (ranks, threads), rates in found.items()
    ]  # fmt: skip
    text = markdown_table(
        ["ranks", "threads of each", "batch of each", "images/s", "runs", "against one of two threads"], rows
    )
    about = TEXT.format(processor=environment()["processor"], rounds=ROUNDS, batch=BATCH)
    report(FILE, "Two ranks against one", "python -m tests.benchmarks.ranks", f"{about}\n{text}")


if __name__ == "__main__":
    main()
