"""The wheel: one package with its options and studies inside, which trains without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

import pytest

import fastfcn_pl
from fastfcn_pl.tools.report.runs import Run
from tests.conftest import ROOT

pytest.importorskip("build", reason="the wheel is built with build")
pytest.importorskip("hatchling", reason="the wheel is built without a network: hatchling has to be installed")
pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]
TINY = ["data.train_images=4", "data.val_images=2", "data.batch_size=2", "data.num_workers=0", "data.size=32"]
TINY += [
    "trainer.max_steps=2",
    "trainer.accelerator=cpu",
    "logger=none",
    "callbacks.cost.repeats=0",
    "hydra.run.dir=run",
]

MIXER = """
import torch

class Mixer(torch.nn.Module):
    def __init__(self, in_info, align_corners, *, width):
        super().__init__()
        self.layer = torch.nn.Conv2d(in_info.channels[-3], width, 1)
        self.out_info = in_info.append(width, in_info.strides[-3])

    def forward(self, levels):
        return [*levels, self.layer(levels[-3])]
"""


def _python(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an sdist, and from that a wheel; return the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    _python("build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a folder of its own; return the folder."""
    folder = tmp_path_factory.mktemp("site")
    _python("pip", "install", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    return folder


def test_the_wheel_holds_the_package_its_options_and_studies_and_nothing_else(wheel: Path) -> None:
    code = [path.relative_to(ROOT) for path in (ROOT / "fastfcn_pl").rglob("*.py")]
    options = [Path("fastfcn_pl") / path.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yaml")]
    studies = [
        Path("fastfcn_pl") / path.relative_to(ROOT)
        for path in (ROOT / "experiments").rglob("*.yaml")
        if "records" not in path.parts
    ]
    pages = [path.relative_to(ROOT) for path in (ROOT / "fastfcn_pl" / "tools" / "report" / "templates").iterdir()]
    code += [*pages, Path("fastfcn_pl/py.typed"), Path("fastfcn_pl/experiments/cluster/wandb_sweep.yml")]
    info = f"fastfcn_pl-{fastfcn_pl.__version__}.dist-info"
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith(f"{info}/")}
    assert held == {path.as_posix() for path in (*code, *options, *studies)}
    assert {"fastfcn_pl/conf/train.yaml", "fastfcn_pl/experiments/quickstart.yaml"} < held


def test_its_metadata(site: Path) -> None:
    (found,) = distributions(path=[str(site)])
    assert (found.name, found.version) == ("fastfcn-pl", fastfcn_pl.__version__)
    assert found.metadata["Requires-Python"] == ">=3.11"
    assert found.metadata["License-Expression"] == "MIT"
    assert "Typing :: Typed" in found.metadata.get_all("Classifier")
    assert any(url.startswith("Changelog, https://") for url in found.metadata.get_all("Project-URL"))
    assert {"hydra-core<1.4,>=1.3.6", "torch>=2.9"} < set(found.requires or ())


def test_its_console_script_runs(site: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(site)}
    words = [sys.executable, str(site / "bin" / "fastfcn"), "--version"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == f"fastfcn_pl {fastfcn_pl.__version__}\n", done.stderr


def _trained(folder: Path, site: Path) -> None:
    """Hold that a run in `folder` was made by the installed package and took two steps."""
    results = json.loads((folder / "run" / "results.json").read_text())
    assert (results["steps"], results["commit"]) == (2, None)
    composed = (folder / "run" / ".hydra" / "hydra.yaml").read_text()
    assert str(site / "fastfcn_pl" / "conf") in composed
    assert str(ROOT) not in composed


def test_a_packaged_study_composes_in_an_empty_folder(command: Command, site: Path) -> None:
    done = command("train", "-cn", "quickstart", *TINY, "--cfg", "all", fresh=True, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert str(site / "fastfcn_pl" / "conf") in done.stdout
    assert str(ROOT) not in done.stdout


@pytest.mark.exhaustive
def test_a_packaged_study_trains_from_an_empty_folder(command: Command, site: Path, tmp_path: Path) -> None:
    done = command("train", "-cn", "quickstart", *TINY, fresh=True, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    _trained(tmp_path, site)
    assert Run(tmp_path / "run").command.startswith("python -m fastfcn_pl.train -cn quickstart data.train_images=4 ")


def test_ones_own_option_and_study_stand_beside_the_packaged_ones(command: Command, site: Path, tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text(MIXER)
    neck = tmp_path / "my_conf" / "model" / "neck"
    neck.mkdir(parents=True)
    (neck / "mixer.yaml").write_text("_target_: my_parts.Mixer\n_partial_: true\nwidth: 24\n")
    study = "defaults: [quickstart, {override model/neck: mixer}, _self_]\nmodel: {neck: {width: 12}}\n"
    (tmp_path / "my_conf" / "mine.yaml").write_text(study)
    done = command("train", "-cd", "my_conf", "-cn", "mine", *TINY, fresh=True, PYTHONPATH=f"{site}:{tmp_path}")
    assert done.returncode == 0, done.stderr
    _trained(tmp_path, site)
    assert Run(tmp_path / "run").command.startswith(
        "python -m fastfcn_pl.train -cd my_conf -cn mine data.train_images="
    )
