"""Pages and metadata of the project: links lead somewhere, commands compose, versions agree."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

import fastfcn_pl
from fastfcn_pl.config import schema
from fastfcn_pl.engine.usage import COMMANDS
from tests.conftest import ROOT

Command = Callable[..., subprocess.CompletedProcess[str]]
RECORDS = "records"
"""Folder of the runs behind a study's page."""
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "experiments").rglob("*.md"),
    *(ROOT / ".github").rglob("*.md"),
]
REPOSITORY = "https://github.com/fastfcn-pl/fastfcn_pl/blob/main/"
STUDIES = [path for path in (ROOT / "experiments").rglob("*.y*ml") if RECORDS not in path.parts]
STUDIES.append(ROOT / "experiments" / "cluster" / "train.sbatch")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        folder = ROOT if target.startswith(REPOSITORY) else page.parent
        if not (local := target.removeprefix(REPOSITORY)).startswith(("http://", "https://")):
            path, _, anchor = local.partition("#")
            file = folder / path if path else page
            assert file.exists(), target
            assert not anchor or anchor in _anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    """Only those without a placeholder such as `<study>`."""
    for path in re.findall(r"`((?:\.github|conf|experiments|fastfcn_pl|tests)/[\w./-]*)`", page.read_text()):
        assert (ROOT / path).exists(), path


LINES = sorted(
    {
        (_name(page), line.partition(" #")[0].rstrip("`. "))
        for page in [*PAGES, *STUDIES]
        for line in re.findall(r"python -m (fastfcn_pl(?:\.\w+)? ?[^`\n]*)", page.read_text().replace("\\\n", " "))
    }
)
"""Each command line of a page or a study, and where it stands."""
MEANS = {"<run>": "run", "<dir>": "dir", "<file>": "file", "<file.ckpt>": "file.ckpt", "$DATA": "data"}


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_that_a_page_names_composes(page: str, line: str) -> None:
    """Of a sweep, its first job. Skip commands that need the reader's own files, a plugin or no configuration."""
    module, *words = shlex.split(re.sub(r" \[.*\]$", "", line))
    command = module.removeprefix("fastfcn_pl").removeprefix(".")
    assert command in {"", *COMMANDS}
    if command in ("", "report", "dashboard") or not words:
        return
    if any(word in line for word in ("-cd my_conf", "hydra/launcher", "residual")):
        return
    config, overrides, words = command, [], iter(words)
    for word in words:
        if word == "-cn":
            config = next(words)
        elif word == "-cd":
            assert next(words) == "experiments"
        elif word not in ("-m", "--help") and "=" in word:
            overrides.append(_filled(word))
    with initialize_config_dir(str(schema.CONF_DIR), version_base="1.3"):
        compose(config, [*overrides, *(["run_dir=."] if command in ("train", "evaluate", "benchmark") else [])])


def _filled(word: str) -> str:
    """Return an override with its placeholders filled, and the first of several values."""
    for placeholder, text in MEANS.items():
        word = word.replace(placeholder, text)
    key, _, value = word.partition("=")
    return f"{key}={value if value[:1] in '[{' else value.split(',')[0]}"


def example(page: str, name: str) -> str:
    """Return the block of code of a page that begins with a comment holding the name of its file."""
    return (ROOT / page).read_text().partition(f"# {name}\n")[2].partition("```")[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "code", "option", "choice"),
    [
        ("README.md", "my_parts.py", "my_conf/model/neck/mixer.yaml", "model/neck=mixer"),
        (
            "CONTRIBUTING.md",
            "fastfcn_pl/models/heads/residual.py",
            "conf/model/head/residual.yaml",
            "model/head=residual",
        ),
    ],
)
def test_the_example_of_an_own_part_trains(
    page: str, code: str, option: str, choice: str, command: Command, tmp_path: Path
) -> None:
    """As a part in a folder of the reader's own, whatever the folder that the page names."""
    module = Path(code).stem
    (tmp_path / f"{module}.py").write_text(example(page, code))
    file = tmp_path / "own" / option.partition("conf/")[2]
    file.parent.mkdir(parents=True)
    file.write_text(example(page, option).replace(f"fastfcn_pl.models.heads.{module}", module))
    small = ["data.train_images=4", "data.val_images=2", "data.batch_size=2", "data.num_workers=0", "logger=none"]
    small += ["trainer.max_steps=2", "trainer.accelerator=cpu", "callbacks.cost.repeats=0", "run_dir=run"]
    done = command("train", "-cd", "own", "-cn", "quickstart", choice, *small)
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
