"""The W&B view and reports: of what runs log, in a form that the package knows, and saved. The shipped sweep."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.dashboard import STEP, _place, spec, study_report, workspace
from fastfcn_pl.training import callbacks
from tests.conftest import ROOT, TINY
from tests.fakes.wandb_server import wandb_server

reports = pytest.importorskip("wandb_workspaces.reports.v2.internal")
workspaces = pytest.importorskip("wandb_workspaces.workspaces.internal")
Command = Callable[..., subprocess.CompletedProcess[str]]


def _view() -> dict[str, Any]:
    return spec(workspace("somebody", "fastfcn_pl", "view", samples=2))


def _report() -> dict[str, Any]:
    return spec(study_report("somebody", "fastfcn_pl", "sweeps/necks", samples=2, text="What is it worth?"))


def _panels(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "viewType" in node:
            yield node
        for value in node.values():
            yield from _panels(value)
    elif isinstance(node, list):
        for value in node:
            yield from _panels(value)


KINDS = {"Run History Line Plot", "Bar Chart", "Media Browser", "Weave", "Scatter Plot", "Parallel Coordinates Plot"}
KINDS |= {"Run Comparer"}


@pytest.mark.parametrize("made", [_view, _report])
def test_a_spec_is_one_that_the_package_reads_back(made: Callable[[], dict[str, Any]]) -> None:
    given = made()
    model = workspaces.WorkspaceViewspec if made is _view else reports.Spec
    read = model.model_validate_json(json.dumps(given)).model_dump(mode="json", by_alias=True, exclude_none=True)
    kept, back = list(_panels(given)), list(_panels(read))
    assert {panel["viewType"] for panel in kept} == KINDS
    assert [panel["viewType"] for panel in back] == [panel["viewType"] for panel in kept]
    for a, b in zip(kept, back, strict=True):
        assert {key: b["config"].get(key) for key in a["config"]} == a["config"]
    assert not re.search("UnknownPanel|UnknownBlock", json.dumps(read))


def _keys(panel: dict[str, Any]) -> Iterator[str]:
    """Yield the names of what a panel shows, as runs log it."""
    config = panel["config"]
    if not config.get("useMetricRegex"):
        yield from config.get("metrics") or []
    yield from config.get("mediaKeys") or []
    yield from (config[axis] for axis in ("xAxis", "yAxis") if config.get(axis))
    yield from (column["accessor"] for column in config.get("columns") or [])
    yield from re.findall(r"\$\{([^}]*)\}", config.get("legendTemplate") or "")
    yield from re.findall(r'"val": "([a-z]+/[^"]+)"', json.dumps(config.get("panel2Config") or {}))


@pytest.mark.parametrize("made", [_view, _report])
def test_panels_show_what_runs_log(made: Callable[[], dict[str, Any]]) -> None:
    """The names are those of the table in `callbacks`, which a test of a whole run holds."""
    documented = re.findall("`([^`]+)`", str(callbacks.__doc__))
    known = "|".join(re.sub(r"\\?<\w+\\?>", "[^/]+", re.escape(name)) for name in documented)
    given, found = made(), set()
    for panel in _panels(given):
        if panel["viewType"] == "Run History Line Plot":
            assert panel["config"]["xAxis"] == STEP
        found |= {key.removeprefix("summary:") for key in _keys(panel)}
    own = {"run:displayName", "config:optimizer.value.lr"}  # W&B's, and the configuration's
    assert not [key for key in found - own if not re.fullmatch(known, key)]
    assert {"val/samples/1", "final/mIoU", "final/classes", "final/confusion", "gmacs", "latency_ms", "neck"} <= found


def test_a_report_is_about_the_runs_of_its_group() -> None:
    text = json.dumps(_report())
    assert '"sweeps/necks"' in text
    assert "What is it worth?" in text


@pytest.mark.parametrize("project", ["fastfcn_pl", "a/b/c", "/", "a/"])
def test_a_place_is_an_entity_and_a_project(project: str) -> None:
    with pytest.raises(UserError, match="give <entity>/<project>"):
        _place(project)


@pytest.mark.slow
def test_the_command_saves_the_view_and_a_report_of_a_study(command: Command, tmp_path: Path) -> None:
    (tmp_path / "necks.md").write_text("# necks\n\n**Question.** Which neck?\n\n## What was learned\n\nJPU.\n")
    env = {"WANDB_API_KEY": "local-" + "5ec4e7" * 6 + "5ec4", "WANDB_MODE": "online", "HOME": str(tmp_path)}
    with wandb_server() as server:
        arguments = ["somebody/fastfcn_pl", "study=sweeps/necks", "text=necks.md", "output=spec.json"]
        done = command("dashboard", *arguments, WANDB_BASE_URL=server.url, **env)
        assert not server.unknown
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "spec.json").read_text())
    view, report = server.views
    assert (view["type"], view["entityName"], view["projectName"]) == ("project-view", "somebody", "fastfcn_pl")
    assert (report["type"], report["displayName"]) == ("runs", "sweeps necks")
    for kept, name in ((view, "workspace"), (report, "report")):
        sent, kinds = json.loads(kept["spec"]), [panel["viewType"] for panel in _panels(written[name])]
        assert [panel["viewType"] for panel in _panels(sent)] == kinds
        assert len(kinds) > 5
    assert "Which neck?" in report["spec"]
    assert f"workspace: {server.url}/somebody/fastfcn_pl?nw=" in done.stdout
    assert f"report: {server.url}/somebody/fastfcn_pl/reports/" in done.stdout


@pytest.mark.slow
def test_without_an_account_nothing_is_saved(command: Command, tmp_path: Path) -> None:
    done = command("dashboard", "somebody/fastfcn_pl", HOME=str(tmp_path), WANDB_API_KEY="")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: not logged in to W&B: run wandb login, or set save=false output=<file.json>"


@pytest.mark.slow
def test_an_agent_of_a_w_and_b_sweep_runs_the_shipped_command(command: Command, tmp_path: Path) -> None:
    """W&B's own code makes the arguments; macros of the command are replaced as its agent replaces them."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load((ROOT / "experiments" / "cluster" / "wandb_sweep.yml").read_text())
    assert sweep["method"] == "bayes"
    assert sweep["metric"] == {"name": "val/mIoU", "goal": "maximize"}
    drawn = {name: it["values"][0] if "values" in it else it["min"] for name, it in sweep["parameters"].items()}
    drawn["model.neck.width"] = 8
    arguments = create_sweep_command_args({"args": {name: {"value": value} for name, value in drawn.items()}})
    macros = {"${env}": [], "${interpreter}": [sys.executable], "${program}": [sweep["program"]]}
    macros["${args_no_hyphens}"] = arguments["args_no_hyphens"]
    line = [word for part in sweep["command"] for word in macros.get(part, [part])]
    assert not [word for word in line if "${" in word]
    own = {"data=camvid": "data=shapes", "data.root=data/CamVid": "data.train_images=4"}
    own |= {"model/backbone=efficientnet_lite0": "data.val_images=2", "trainer.max_epochs=28": "trainer.max_epochs=1"}
    assert own.keys() <= set(line)
    small = [word for word in TINY if not word.startswith(("logger", "model.neck"))]
    small += ["data.size=64", "data.batch_size=2", "data.num_workers=0", "callbacks.cost.repeats=0", "run_dir=run"]
    assert line[:3] == [sys.executable, "-m", "fastfcn_pl.train"]
    env = {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "agents-id", "HOME": str(tmp_path)}
    done = command("train", *(own.get(word, word) for word in line[3:]), *small, **env)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert folder.name.endswith("-agents-id"), "the agent knows its run by this id"
    overrides = yaml.safe_load((next(tmp_path.glob("runs/train/*")) / ".hydra" / "overrides.yaml").read_text())
    assert f"optimizer.lr={drawn['optimizer.lr']}" in overrides
