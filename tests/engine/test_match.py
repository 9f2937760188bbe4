"""`match` of the commands: what it refuses, and where the width that it chose is kept."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import match
from fastfcn_pl.tools.train import train
from tests.conftest import TINY

Command = Callable[..., subprocess.CompletedProcess[str]]
MATCH = "match={what:gmacs,of:'model/neck=jpu_128',within:0.03}"
NET = ["model.backbone.name=test_resnet", "model.backbone.pretrained=false", "model.head.channels=8"]
TRAIN = [*NET, "model.aux_head.channels=8", "data.train_images=8", "data.val_images=2", "data.size=64", "logger=none"]
TRAIN += ["data.num_workers=0", "data.batch_size=2", "trainer.accelerator=cpu", "callbacks.cost.repeats=0"]
TRAIN += ["~callbacks.progress", "callbacks.last.every_n_steps=1"]


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ("gmacs", "match=gmacs: give what, of, within"),
        ("{what:gmacs,of:'model/neck=jpu'}", "give what, of, within"),
        ("{what:flops,of:'model/neck=jpu',within:0.03}", "match.what=flops: no such cost; choose from gmacs, latency"),
        ("{what:gmacs,of:'model/neck=jpu',within:3}", "match.within=3: give a share between 0 and 1"),
        ("{what:gmacs,of:jpu,within:0.03}", "match.of=jpu: give the options of the reference"),
        ("{what:gmacs,of:'model/neck=jpu',within:0.03,with:1}", "match.with: no such key; did you mean within"),
    ],
)
def test_a_wrong_request_is_one_line(request_: str, line: str, make_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match=line):
        match.solve(make_config(f"match={request_}", name="benchmark"))


def test_a_checkpoint_has_its_width(make_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match="checkpoint= has one: leave out one of them"):
        match.solve(make_config(MATCH, "checkpoint=a.ckpt", name="benchmark"))


def test_nothing_is_asked_for_without_a_cost(make_config: Callable[..., DictConfig]) -> None:
    for request in ("null", "{what:null,of:'model/neck=jpu',within:0.03}"):
        cfg = make_config(f"match={request}", name="benchmark")
        width = cfg.model.neck.width
        match.solve(cfg)
        assert (cfg.model.neck.width, match.results(cfg)) == (width, {})


def test_python_is_told_that_a_command_solves(make_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match=r"match is solved by `python -m fastfcn_pl.train`"):
        train(make_config(*TINY, MATCH))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([MATCH, "model.neck.width=64"], "so model.neck.width=64 cannot be set as well: leave out one of them"),
        (["-m", MATCH, "model.neck.width=64"], "so model.neck.width=64 cannot be set as well: leave out one of them"),
        ([MATCH.replace("jpu_128", "jpu_129")], "Could not find 'model/neck/jpu_129'"),
    ],
    ids=["a run", "a sweep", "no such reference"],
)
def test_a_conflict_is_one_line(words: list[str], message: str, command: Command) -> None:
    done = command("benchmark", *words, *NET, "model/neck=fpn")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line


@pytest.mark.slow
def test_a_sweep_shows_what_was_chosen(command: Command, tmp_path: Path) -> None:
    small = [*NET, "size=[64,64]", "repeats=1", "warm_up=0", "memory=false", "device=cpu"]
    # The necks' own keys are not those of the reference, and dilation in the backbone belongs to the option of a neck.
    sweep = ["model/neck=fpn,jpu_x,dilated", "hydra.sweep.dir=sweep"]
    own = tmp_path / "my_conf" / "model" / "neck" / "own.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("defaults: [jpu_128]\n")
    done = command("benchmark", "-cd", "my_conf", "-m", *small, MATCH.replace("jpu_128", "own"), *sweep)
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / "sweep" / str(job) / "benchmark.json").read_text()) for job in range(3)]
    fpn, jpu_x, dilated = (job["match"]["solved"] for job in found)
    assert fpn["reference"] == jpu_x["reference"] == dilated["reference"]
    assert found[0]["gmacs"] == fpn["cost"] == pytest.approx(fpn["reference"], rel=0.03)
    assert found[1]["gmacs"] == jpu_x["cost"] != pytest.approx(jpu_x["reference"], rel=0.03)
    assert [fpn["reached"], jpu_x["reached"], dilated["reached"]] == [True, False, False]
    assert (jpu_x["width"] % 64, dilated["width"]) == (0, None)
    lines = [line for line in done.stdout.splitlines() if line.startswith("match: ") and "times" in line]
    assert len(lines) == 3
    assert lines[0].startswith(f"match: fpn with width {fpn['width']}: ")
    assert f"jpu_x with width {jpu_x['width']} (the closest)" in lines[1]
    assert lines[2].startswith("match: dilated with no width: ")
    assert lines[2].endswith("times model/neck=own, not within 0.03")
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as file:
        cells = [row["equal_cost"] for row in csv.DictReader(file)]
    assert cells == [
        f"width {fpn['width']} ({fpn['ratio']:.3f}x)",
        f"width {jpu_x['width']} ({jpu_x['ratio']:.3f}x, the closest)",
        f"no width ({dilated['ratio']:.3f}x)",
    ]
    assert cells[0] in (tmp_path / "sweep" / "sweep.md").read_text()
    done = command("report", "sweep", "output=pages")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "pages" / "benchmark.md").read_text()
    assert f"| {cells[0]} |" in page
    assert "Equal cost: the neck's width is chosen for the GMACs of model/neck=own, within 3 %" in page


@pytest.mark.exhaustive
def test_a_resumed_run_keeps_the_width_that_was_chosen(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [*TRAIN, MATCH, "model/neck=fpn", "hydra.run.dir=run", "resume=auto"]
    first = command("train", *words, "trainer.max_epochs=1", "trainer.max_time=null")
    assert first.returncode == 0, first.stderr
    results = json.loads((folder / "results.json").read_text())
    width = results["match"]["solved"]["width"]
    assert results["equal_cost"] == f"width {width} ({results['match']['solved']['ratio']:.3f}x)"
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["config"]["model"]["neck"]["width"] == width != 256
    assert f"match: fpn with width {width}" in first.stdout

    (folder / "results.json").unlink()
    record = folder / match.FILE
    content = json.loads(record.read_text())
    assert content == results["match"]
    content["solved"]["ratio"] = 1.0123  # as if another start had measured otherwise
    record.write_text(json.dumps(content))
    done = command("train", *words, "trainer.max_epochs=1", "trainer.max_time=null")
    assert done.returncode == 0, done.stderr
    again = json.loads((folder / "results.json").read_text())
    assert again["match"]["solved"] == content["solved"]
    assert "looking for the width" not in done.stdout

    (folder / "results.json").unlink()
    other = command("train", *TRAIN, "model/neck=fpn", "resume=run/checkpoints/last.ckpt", MATCH.replace("0.03", "0.1"))
    assert other.returncode == 1
    assert "and keeps its width: resume it with the same match" in other.stderr

    done = command("evaluate", "checkpoint=run/checkpoints/last.ckpt", "trainer.accelerator=cpu", "data.num_workers=0")
    assert done.returncode == 0, done.stderr


@pytest.mark.exhaustive
def test_ranks_train_with_one_width(command: Command, tmp_path: Path) -> None:
    words = [*TRAIN, MATCH.replace("gmacs", "latency"), "model/neck=fpn", "hydra.run.dir=run", "trainer.devices=2"]
    done = command("train", *words, "trainer.max_epochs=1", fresh=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("match: fpn with width") == 1
