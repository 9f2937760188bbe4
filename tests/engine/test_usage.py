"""The list of commands, and the messages of a command before its slow imports."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import fastfcn_pl
from fastfcn_pl.config import schema
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import help_page, startup_messages, usage
from tests.conftest import ROOT

Command = Callable[..., subprocess.CompletedProcess[str]]
HEAVY = "import sys; assert not {'torch', 'lightning', 'wandb', 'timm'} & set(sys.modules)"
OF_HYDRA = [name for name in usage.COMMANDS if name != "report"]


def test_every_command_is_listed() -> None:
    files = (path for path in (ROOT / "fastfcn_pl").glob("*.py") if '__name__ == "__main__"' in path.read_text())
    assert {path.stem for path in files} - {"__main__"} == set(usage.COMMANDS)
    for name in usage.COMMANDS:
        assert f"  {name} " in usage.listing()
        assert usage.line(name) in usage.listing()


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--help"], 0), (["trian"], 1)])
def test_the_package_itself_lists_them(arguments: list[str], code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastfcn_pl", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    if code:
        assert done.stderr.startswith("error: trian: no such command; did you mean train")
        assert done.stderr.count("\n") == 1
    else:
        called = usage.listing().replace("python -m fastfcn_pl.", "python -m fastfcn_pl ")
        assert done.stdout == f"{called}\n"


def _fastfcn(*arguments: str, name: str = "fastfcn") -> subprocess.CompletedProcess[str]:
    """Call the console script as pip writes it."""
    code = f"import sys; sys.argv[0] = '/bin/{name}'; from fastfcn_pl.__main__ import main; main()"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True)


def test_the_console_script_names_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"fastfcn": "fastfcn_pl.__main__:main"}
    listed = _fastfcn().stdout
    assert "  fastfcn train -cn quickstart\n" in listed
    assert "python -m" not in listed
    assert 'eval "$(fastfcn train -sc install=bash)"' in listed
    assert _fastfcn("trian").stderr.rstrip().endswith("did you mean train?; fastfcn lists them with examples")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fastfcn", "__main__.py"])
@pytest.mark.parametrize("command", ["predict", "report"])
def test_a_message_names_the_command_as_it_was_called(name: str, command: str) -> None:
    done = _fastfcn(command, name=name)
    called = "fastfcn" if name == "fastfcn" else "python -m fastfcn_pl"
    assert done.returncode == 1
    assert f"{called} {command} " in done.stderr
    assert "fastfcn_pl." not in done.stderr


@pytest.mark.parametrize("module", ["__main__", "train", "report"])
def test_the_version_is_ours(module: str, command: Command) -> None:
    assert command(module, "--version").stdout == f"fastfcn_pl {fastfcn_pl.__version__}\n"


COMPLETED = {
    "fastfcn tr": ["train"],
    "fastfcn train model/neck=jpu_x": ["model/neck=jpu_x", "model/neck=jpu_x_128"],
    "python -m fastfcn_pl.train -cn quickstart model/neck=jpu_x": ["model/neck=jpu_x", "model/neck=jpu_x_128"],
    "python -m fastfcn_pl train protocol=mmseg_": ["protocol=mmseg_ms", "protocol=mmseg_slide"],
    "python script.py model/neck=jpu_x": [],
}


@pytest.mark.slow  # each line asks a command
def test_bash_completes_what_is_typed(tmp_path: Path) -> None:
    for name, words in {"fastfcn": f"{sys.executable} -m fastfcn_pl", "python": sys.executable}.items():
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (tmp_path / name).chmod(0o755)
    ask = "COMP_LINE={}; COMP_POINT=${{#COMP_LINE}}; COMPREPLY=(); _fastfcn_pl; echo ${{COMPREPLY[*]}}"
    lines = [ask.format(shlex.quote(line)) for line in COMPLETED]
    script = "\n".join(['eval "$(python -m fastfcn_pl.train -sc install=bash)"', *lines])
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)
    assert [line.split() for line in done.stdout.splitlines()] == list(COMPLETED.values()), done.stderr


@pytest.mark.slow
def test_a_command_may_stand_behind_the_package(command: Command) -> None:
    done = command("__main__", "train", "-cn", "quickstart", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "name: test_resnet" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluate", "predict", "demo", "export", "convert", "dashboard", "prepare", "doctor"])
def test_a_command_without_its_arguments_names_them_with_an_example(
    name: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    done = command(name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {name} needs ")
    assert usage.line(name) in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == f"{help_page.page(name, [])}\n\n"


@pytest.mark.parametrize("key", ["data.root", "data.classes"])
def test_a_missing_key_inside_of_a_part_is_named_before_imports(key: str, make_config: Callable[..., object]) -> None:
    given = {"data.root": "x", "data.classes": "[a,b]"}
    cfg = make_config("data=folder", *(f"{k}={v}" for k, v in given.items() if k != key))
    with pytest.raises(UserError, match=f"^train needs {key}="):
        startup_messages.before_imports("fastfcn_pl.train", cfg)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_first_line_needs_no_heavy_import() -> None:
    code = (
        f"import fastfcn_pl.engine.launch, fastfcn_pl.engine.startup_messages, fastfcn_pl.models.weights.hub; {HEAVY}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_it_is_printed_by_rank_0_alone(
    make_config: Callable[..., object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = make_config("model.backbone.pretrained=false")
    startup_messages.before_imports("fastfcn_pl.train", cfg)  # type: ignore[arg-type]
    assert capsys.readouterr() == ("train: loading PyTorch\n", "")
    monkeypatch.setenv("LOCAL_RANK", "1")
    startup_messages.before_imports("fastfcn_pl.train", cfg)  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["-cn", "neck_ablation"], ["-cn", "quickstart", "model/backbone=resnet50"]])
@pytest.mark.parametrize("kind", ["job", "all", "hydra"])
def test_a_configuration_is_shown_resolved(kind: str, arguments: list[str], command: Command, tmp_path: Path) -> None:
    done = command("train", *arguments, "--cfg", kind, "--resolve")
    assert done.returncode == 0, done.stderr
    shown = OmegaConf.create(done.stdout)
    if kind != "hydra":
        assert OmegaConf.to_container(shown) == OmegaConf.to_container(shown, resolve=True)  # no interpolation is left
        assert Path(shown.run_dir).parent.parent == tmp_path / "runs"
    assert not (tmp_path / "runs").exists()
    assert done.stderr.startswith("note: model/backbone=resnet50 replaces ") == (len(arguments) == 3)


@pytest.mark.parametrize("name", sorted({*OF_HYDRA} - {"train"}))
def test_any_commands_configuration_is(name: str, command: Command) -> None:
    data = ["data=camvid"] if name in ("prepare", "doctor") else []
    done = command(name, *data, "--cfg", "all", "--resolve")
    assert done.returncode == 0, done.stderr


def test_flags_that_exclude_each_other_are_one_line(command: Command) -> None:
    done = command("train", "-m", "seed=1,2", "--cfg", "job")
    assert done.returncode == 1
    assert (
        done.stderr == "error: Only one of --run, --multirun, --cfg, --info and --shell_completion can be specified\n"
    )


def test_options_are_completed(command: Command) -> None:
    done = command("train", "-sc", "query=bash", COMP_LINE="train model/neck=j", COMP_POINT="18")
    assert done.stdout.split() == [f"model/neck={name}" for name in ("jpu", "jpu_128", "jpu_x", "jpu_x_128")]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["data.root=nowhere"], ["trainer.barebones=true"]])
def test_a_mistake_in_a_folder_of_the_jobs_own_is_one_line(
    arguments: list[str], command: Command, tmp_path: Path
) -> None:
    done = command("train", "data=camvid", "model.backbone.pretrained=false", *arguments, "hydra.job.chdir=true")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert not list(tmp_path.iterdir())


def test_studies_and_primary_configs_are_where_the_examples_say() -> None:
    assert (schema.STUDIES_DIR / "quickstart.yaml").is_file()
    assert {path.stem for path in schema.CONF_DIR.glob("*.yaml")} == set(OF_HYDRA)
