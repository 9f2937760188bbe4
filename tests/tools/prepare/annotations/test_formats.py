"""The same annotated set from each tool gives the same masks, and trains."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fastfcn_pl.tools.prepare.annotations.output import OUTPUT
from fastfcn_pl.tools.prepare.command import prepare
from tests.conftest import ROOT, TINY, composed
from tests.fakes.annotations import LABELS, NAMES, WRITERS
from tests.support.grids import sample

GOLDEN = yaml.safe_load((ROOT / "tests" / "golden" / "annotations.yaml").read_text())
"""A letter for each pixel, from a test of each centre against each edge in plain Python, and checked by eye."""


def run(root: Path, *overrides: str) -> None:
    prepare(composed("data=folder", f"data.root={root}", "num_workers=0", *overrides, name="prepare"))


def mask(root: Path, name: str) -> str:
    """Return the mask of an image: a letter for each pixel, - for the background."""
    letters = {i: name[0] for i, name in enumerate((root / OUTPUT / "classes.txt").read_text().split())}
    letters |= {0: "-", 255: "."}
    stem = Path(name).stem
    (path,) = [path for path in (root / OUTPUT / "masks").rglob("*.png") if path.stem in (stem, f"{stem}_leftImg8bit")]
    ids = np.asarray(Image.open(path))
    return "".join("".join(letters[i] for i in row) + "\n" for row in ids.tolist())


@pytest.mark.parametrize("format", WRITERS)
def test_every_format_gives_the_same_masks(format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WRITERS[format](tmp_path)
    run(tmp_path)
    assert {name: mask(tmp_path, name) for name in NAMES} == GOLDEN["masks"]
    said = capsys.readouterr().out
    for line in GOLDEN["overlaps"]:
        assert line in said or format.endswith("masks")


@pytest.mark.slow  # 3 s for each format
@pytest.mark.parametrize("format", sample(WRITERS, "coco text", "cvat masks"))
def test_the_printed_command_trains(
    format: str, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    WRITERS[format](tmp_path / "My pets")
    done = command("prepare", "data=folder", "data.root='My pets'", "num_workers=0")
    assert done.returncode == 0, done.stderr
    module, *arguments = shlex.split(done.stdout.partition("next: python -m ")[2])
    step = [
        "trainer.max_steps=1",
        "data.batch_size=2",
        "data.num_workers=0",
        "data/augmentation=flip",
        "callbacks.cost.repeats=0",
    ]
    done = command(module.removeprefix("fastfcn_pl."), *arguments, *TINY, *step, f"run_dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["steps"], results["data"], {*results["IoU"]}) == (1, "My pets", {"background", *LABELS})
