"""Pages and metadata of the project: links lead somewhere, examples train, versions agree."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import fastfcn_pl
from tests.conftest import ROOT

Command = Callable[..., subprocess.CompletedProcess[str]]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "experiments").rglob("*.md"),
    *(ROOT / ".github").rglob("*.md"),
]
REPOSITORY = "https://github.com/fastfcn-pl/fastfcn_pl/blob/main/"


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)  # a comment is no heading
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        folder = ROOT if target.startswith(REPOSITORY) else page.parent
        if not (local := target.removeprefix(REPOSITORY)).startswith(("http://", "https://")):
            path, _, anchor = local.partition("#")
            file = folder / path if path else page
            assert file.exists(), target
            assert not anchor or anchor in _anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    """Only those without a placeholder such as `<study>`."""
    for path in re.findall(r"`((?:\.github|conf|experiments|fastfcn_pl|tests)/[\w./-]*)`", page.read_text()):
        assert (ROOT / path).exists(), path


def _example(name: str) -> str:
    """Return the block of code of CONTRIBUTING.md that begins with a comment holding the name of its file."""
    return (ROOT / "CONTRIBUTING.md").read_text().partition(f"# {name}\n")[2].partition("```")[0]


@pytest.mark.slow
def test_the_example_of_an_own_part_trains(command: Command, tmp_path: Path) -> None:
    """That of CONTRIBUTING.md, as a part in a folder of the reader's own."""
    (tmp_path / "residual.py").write_text(_example("fastfcn_pl/models/heads/residual.py"))
    option = tmp_path / "own" / "model" / "head" / "residual.yaml"
    option.parent.mkdir(parents=True)
    text = _example("conf/model/head/residual.yaml")
    option.write_text(text.replace("fastfcn_pl.models.heads.residual", "residual"))
    small = ["data.train_images=4", "data.val_images=2", "data.batch_size=2", "data.num_workers=0", "logger=none"]
    small += ["trainer.max_steps=2", "trainer.accelerator=cpu", "callbacks.cost.repeats=0", "run_dir=run"]
    done = command("train", "-cd", "own", "-cn", "quickstart", "model/head=residual", *small)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 2


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest, date = re.findall(r"^## \[(\d[^\]]*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert fastfcn_pl.__version__ == newest == citation["version"]
    assert date == str(citation["date-released"])


def test_tools_have_one_version_everywhere() -> None:
    constraints = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    ruff, *_ = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert ruff["rev"] == f"v{constraints['ruff']}"


def test_ci_runs_on_every_python_that_the_package_claims() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    claimed = [c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r"Python :: \d\.\d+$", c)]
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"].values()
    assert job["strategy"]["matrix"]["python-version"] == claimed
    assert project["requires-python"] == f">={claimed[0]}"


def test_each_page_of_the_documentation_is_in_its_contents() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:\n")[2]
    assert set(re.findall(r"(\w+\.md)$", nav, re.MULTILINE)) == {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("part", ["neck", "head"])
def test_each_neck_and_head_has_a_figure(part: str) -> None:
    """Options that differ in numbers alone share one."""
    text = (ROOT / "docs" / f"{part}s.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert all("```mermaid" in body for body in sections.values())
    for option in (ROOT / "conf" / "model" / part).glob("*.yaml"):
        assert option.stem.removesuffix("_128") in sections or f"`{option.stem}`" in text, option.stem
