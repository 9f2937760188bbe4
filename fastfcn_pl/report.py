"""A page about finished runs: `python -m fastfcn_pl.report <run folder>... output=<dir>`.

Everything on it is read from the runs' folders, but for the section `What was learned`, which is a person's: it is
kept as it is when the page is written again.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fastfcn_pl.contracts import UserError
from fastfcn_pl.scoring import percent, subject

LEARNED = "## What was learned"
_USAGE = "usage: python -m fastfcn_pl.report <run folder>... output=<dir>"
_SAMPLES = 4


@dataclass(frozen=True)
class Run:
    """The folder of one finished run."""

    folder: Path

    @cached_property
    def results(self) -> dict[str, Any]:
        return json.loads((self.folder / "results.json").read_text())

    @cached_property
    def config(self) -> dict[str, Any]:
        return _yaml(self.folder / ".hydra" / "config.yaml")

    @cached_property
    def _hydra(self) -> dict[str, Any]:
        return _yaml(self.folder / ".hydra" / "hydra.yaml")["hydra"]

    @property
    def study(self) -> str:
        """The name of the primary config that it ran."""
        return self._hydra["job"]["config_name"]

    @property
    def overrides(self) -> list[str]:
        """What the command line changed; where data lies on one machine is of no use on another."""
        return [o if not o.startswith("data.root=") else "data.root=<dir>" for o in self._hydra["overrides"]["task"]]

    @property
    def command(self) -> str:
        """What started it, without the folders that are of one machine."""
        sources = self._hydra["runtime"]["config_sources"]
        own = [f"-cd {Path(source['path']).name}" for source in sources if source["provider"] == "command-line"]
        study = [f"-cn {self.study}"] if self.study != "train" else []
        return " ".join(["python -m fastfcn_pl.train", *own, *study, *self.overrides])

    def curve(self, column: str) -> tuple[list[float], list[float]]:
        """Return steps and values of a column of the run's metrics."""
        with (self.folder / "metrics" / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get(column)]
        return [float(row["step"]) for row in rows], [float(row[column]) for row in rows]


def report(folders: list[Path], output: Path) -> Path:
    """Write the page about the runs in `folders` into `output`, named after their study, and return its path."""
    runs = sorted((_open(folder) for folder in folders), key=lambda run: -(run.results["mIoU"] or 0))
    names = _names(runs)
    studies = {run.study for run in runs}
    name = studies.pop() if len(studies) == 1 else "report"
    page, pictures = output / f"{name}.md", output / name
    pictures.mkdir(parents=True, exist_ok=True)
    _draw_curves(runs, names, pictures / "curves.svg")
    sections = [
        f"# {name}",
        *([f"**Question.** {question}"] if (question := runs[0].config.get("question")) else []),
        "\n".join(["```", *dict.fromkeys(run.command for run in runs), "```"]),
        _results_table(runs, names),
        f"![curves]({name}/curves.svg)",
        "## IoU by class, in percent",
        _class_table(runs, names),
        *_samples(runs, names, pictures),
        "## How it ran",
        _environment(runs),
        _learned(page),
    ]
    page.write_text("\n\n".join(sections) + "\n")
    return page


def _yaml(path: Path) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(path))  # type: ignore[return-value]


def _open(folder: Path) -> Run:
    for name in ("results.json", ".hydra/config.yaml", "metrics/metrics.csv"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is not the folder of a finished run: {name} is missing (hydra.run.dir moves a whole run)"
            )
    return Run(folder)


def _names(runs: list[Run]) -> list[str]:
    """Return what tells each run from the others: the overrides that not all of them have, else its folder's name."""
    common = set.intersection(*(set(run.overrides) for run in runs))
    names = [" ".join(o for o in run.overrides if o not in common) for run in runs]
    return [name if name and names.count(name) == 1 else run.folder.name for name, run in zip(names, runs, strict=True)]


def _results_table(runs: list[Run], names: list[str]) -> str:
    rows = []
    for run, name in zip(runs, names, strict=True):
        it = run.results
        scores = [percent(it[key]) for key in ("mIoU", "pixel_accuracy", "mean_accuracy")]
        size = [f"{it['parameters'] / 1e6:.2f}", f"{it['gmacs']:.2f}"]
        effort = [str(it["steps"]), str(it["epochs"]), f"{it['train_seconds'] / 60:.1f}"]
        rows.append([name, subject(it), it["protocol"], *scores, *size, *effort])
    header = [
        "run",
        "split",
        "protocol",
        "mIoU",
        "pixel acc.",
        "mean acc.",
        "M params",
        "GMACs",
        "steps",
        "epochs",
        "min",
    ]
    note = "GMACs of one image of 512x512; minutes of training, validation included."
    return f"{_table(header, rows)}\n\n{note}"


def _class_table(runs: list[Run], names: list[str]) -> str:
    classes = list(runs[0].results["IoU"])
    values = [[percent(run.results["IoU"].get(name)) for run in runs] for name in classes]
    shares = [percent(runs[0].results["share"][name]) for name in classes]
    rows = [[name, share, *row] for name, share, row in zip(classes, shares, values, strict=True)]
    return _table(["class", "pixel share", *names], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _samples(runs: list[Run], names: list[str], pictures: Path) -> list[str]:
    """Put overlays of each run into one picture, and return the sections that show them."""
    import numpy as np
    from PIL import Image

    from fastfcn_pl.visualize import stack

    sections = ["## Samples"]
    for i, (run, name) in enumerate(zip(runs, names, strict=True)):
        files = sorted((run.folder / "overlays").glob("*.png"), key=lambda file: int(file.stem))[:_SAMPLES]
        if files:
            target = pictures / f"samples_{i}.jpg"
            Image.fromarray(stack([np.asarray(Image.open(file)) for file in files])).save(target, quality=85)
            sections.append(f"{name}\n\n![samples]({pictures.name}/{target.name})")
    return sections if len(sections) > 1 else []


def _environment(runs: list[Run]) -> str:
    lines = []
    for key in ("commit", "processor", "versions", "world_size"):
        values = dict.fromkeys(_plain(run.results[key]) for run in runs)
        lines.append(f"- {key.replace('_', ' ')}: {' / '.join(values)}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _learned(page: Path) -> str:
    text = page.read_text() if page.is_file() else ""
    return LEARNED + text.partition(LEARNED)[2].rstrip() if LEARNED in text else f"{LEARNED}\n\nNot written yet."


def _draw_curves(runs: list[Run], names: list[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "fastfcn_pl", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for axis, column, title in zip(axes, ("train/loss", "val/mIoU"), ("training loss", "val mIoU"), strict=True):
        for run, name in zip(runs, names, strict=True):
            axis.plot(*run.curve(column), label=name, linewidth=1.2)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        axes[1].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(arguments: list[str]) -> None:
    """Read the command line; exit with 1 and one line where it, or a run, does not serve."""
    outputs = [a.removeprefix("output=") for a in arguments if a.startswith("output=")]
    folders = [Path(a) for a in arguments if not a.startswith("output=")]
    if len(outputs) != 1 or not folders or any("=" in str(f) and not f.is_dir() for f in folders):
        sys.exit(_USAGE)
    try:
        print(report(folders, Path(outputs[0])))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
