"""The command line answers quickly, and reports a mistake in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import pytest

import fastfcn_pl
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import failure
from fastfcn_pl.engine.checkpoint import load
from fastfcn_pl.engine.error_messages import one_line
from fastfcn_pl.engine.usage import COMMANDS
from fastfcn_pl.tools.predict.predictor import Predictor
from fastfcn_pl.training import distributed
from tests.conftest import ROOT, TINY
from tests.fakes.command import write_command

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_torch_is_not_imported_before_the_config_is_known_good() -> None:
    code = "import sys, fastfcn_pl.train, fastfcn_pl.report; print({'torch', 'lightning', 'wandb'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"report"}))
def test_a_command_runs_the_job_of_its_name(name: str) -> None:
    source = (ROOT / "fastfcn_pl" / f"{name}.py").read_text()
    found = re.search(r'main\("(\w+)", "([\w.:]+)"\)', source)
    assert found is not None
    assert found[1] == name
    assert resolve_name(found[2]).__name__ == name


def test_public_names_are_imported_when_they_are_used() -> None:
    assert fastfcn_pl.Predictor is Predictor
    assert fastfcn_pl.load is load
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = fastfcn_pl.Predicter
    code = "import sys, fastfcn_pl; print({'torch', 'numpy', 'hydra'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.slow
def test_help_lists_groups_and_keys(command: Command) -> None:
    done = command("train", "--help")
    assert done.returncode == 0
    assert "model/neck: " in done.stdout
    assert "batch_size" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["-cd", str(ROOT / "experiments")]], ids=["anywhere", "by its folder"])
def test_a_study_is_found(command: Command, arguments: list[str]) -> None:
    done = command("train", *arguments, "-cn", "quickstart", "--cfg", "job", "data.size=64")
    assert done.returncode == 0, done.stderr
    assert "name: test_resnet" in done.stdout
    assert "size: 64" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("sead=1", "sead: no such key; did you mean seed?"),
        ("model.neck.widht=1", "model.neck.widht: no such key; did you mean width?"),
        ("loss.terms.cross_entropy.wieght=1", "loss.terms.cross_entropy.wieght: no such key; did you mean weight?"),
        ("model/neck=jup", "Could not find 'model/neck/jup'"),
        ("-cn=quickstrat", "-cn quickstrat: no such study (-cd <folder> adds your own); did you mean quickstart?"),
        ("seed=abc", "could not be converted to Integer"),
        ("diagnostics=[components,calibratin]", "diagnostics: no such option as calibratin; did you mean calibration?"),
        ("diagnostics=calibratin", "Available options in 'diagnostics': all; boundary_bands; boundary_iou;"),
        ("diagnostics.calibration.bins=9", "diagnostics.calibration: no such key"),
        ("diagnostics=null", "a group's option is a name, or a list of names"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(command: Command, argument: str, line: str) -> None:
    done = command("train", argument)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr


@pytest.mark.slow
def test_a_typo_in_a_study_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_]\ntrainer: {max_epoch: 3}\n")
    done = command("train", "-cd", str(tmp_path), "-cn", "mine")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: trainer.max_epoch: lightning.Trainer has no such parameter")
    assert "Traceback" not in done.stderr
    debug = command("train", "-cd", str(tmp_path), "-cn", "mine", "+debug=true")
    assert "Traceback" in debug.stderr


@pytest.mark.slow
def test_a_missing_root_says_how_to_get_the_data(command: Command) -> None:
    done = command("train", "data=ade20k", "data.root=nowhere")
    assert done.returncode == 1
    assert "error: data.root=nowhere is not a folder: run python -m fastfcn_pl.prepare data=ade20k" in done.stderr


def test_a_workers_error_is_the_message_without_its_traceback() -> None:
    wrapped = UserError(
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback ...\nUserError: a.png is bad\n"
    )
    assert one_line(wrapped) == "a.png is bad"


@pytest.mark.parametrize(("parents", "said"), [([7, 7], "error: bad mask\n"), ([7, 7, 1], "")])
def test_a_child_speaks_only_where_rank_0_has_not_met_the_error(
    parents: list[int], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The id of its parent changes when rank 0 exits."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(distributed, "_PARENT", 7)
    monkeypatch.setattr(distributed, "GRACE", 0.15)
    monkeypatch.setattr(distributed.os, "getppid", lambda: parents.pop(0) if len(parents) > 1 else parents[0])
    with pytest.raises(SystemExit) as end:
        failure.end(UserError("bad mask"))
    assert end.value.code == 1
    assert capsys.readouterr().err == said


def test_a_name_of_two_lines_is_still_one_line() -> None:
    assert one_line(UserError("a\nb\x85c.png is missing")) == "a b c.png is missing"


def test_a_bug_is_not_hidden() -> None:
    assert one_line(ZeroDivisionError("division by zero")) is None
    bug = KeyError("x")
    bug.__context__ = UserError("met on the way")
    assert one_line(bug) is None


@pytest.mark.slow
def test_what_cannot_be_built_is_named(command: Command) -> None:
    done = command("train", *TINY, "trainer.precision=17")
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: trainer cannot be built: ValueError: ")
    assert line.endswith("(+debug=true shows where)")


@pytest.mark.slow
def test_the_batch_file_for_slurm_gives_a_command_that_composes(command: Command, tmp_path: Path) -> None:
    """The batch file runs with a fake `srun` that records its arguments."""
    noted = write_command(tmp_path / "bin" / "srun")
    script = ROOT / "experiments" / "cluster" / "train.sbatch"
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "DATA": "/data", "SLURM_JOB_ID": "4711"}
    subprocess.run(["bash", str(script), "seed=1"], check=True, env=env)
    words = noted.read_text().split()
    assert words[:4] == ["--kill-on-bad-exit=1", "python", "-m", "fastfcn_pl.train"]
    done = command("train", *words[4:], "--cfg", "all")
    assert done.returncode == 0, done.stderr
    for line in ("root: /data/ADEChallengeData2016", "seed: 1", "num_nodes: 2", "dir: runs/ade20k/4711"):
        assert line in done.stdout
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script.read_text(), re.MULTILINE))
    assert (asked["nodes"], asked["ntasks-per-node"]) == ("2", "4")
    assert f"devices: {asked['ntasks-per-node']}\n" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "resume=x/checkpoints/last.ckpt"], "error: resume=x/checkpoints/last.ckpt cannot be read: "),
        (["convert", "source=weights.pth", "output=a.ckpt"], "error: source=weights.pth cannot be read: "),
        (["evaluate", "checkpoint=weights.pth"], "error: checkpoint=weights.pth cannot be read: "),
        (
            ["train", "model.backbone.pretrained=weights.pth", *TINY[2:], "model/backbone=resnet18"],
            "error: model.backbone.pretrained=weights.pth: not a file of weights",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_damaged_file_is_named_by_the_key_that_names_it(
    arguments: list[str], line: str, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "x" / "checkpoints").mkdir(parents=True)
    for path in ("x/checkpoints/last.ckpt", "weights.pth"):
        (tmp_path / path).write_bytes(b"no weights")
    done = command(*arguments)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(line)
