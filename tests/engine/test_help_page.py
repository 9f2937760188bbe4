"""The help page of each command: its purpose, an example, the meaning of its keys, what it can choose from."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fastfcn_pl.config import schema
from fastfcn_pl.config.yaml_comments import commented_keys, header
from fastfcn_pl.engine import help_page, usage
from fastfcn_pl.engine.command_line import overrides_first

Command = Callable[..., subprocess.CompletedProcess[str]]
OF_HYDRA = sorted({*usage.COMMANDS} - {"report"})
GROUPS = {
    "evaluate": {"data", "diagnostics", "protocol"},
    "predict": set(),
    "demo": set(),
    "export": {"data"},
    "convert": {"data"},
    "dashboard": set(),
    "prepare": {"data", "prepare"},
    "doctor": {"data"},
}
"""Groups that a command reads; those of train and benchmark build a network."""


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width of a page that is printed in this process is that of a command's."""
    monkeypatch.setenv("COLUMNS", "100")


def _words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", OF_HYDRA)
def test_it_says_what_the_yaml_says_about_each_key(name: str) -> None:
    page = help_page.page(name, [])
    assert page.startswith(f"{name}: {usage.COMMANDS[name].purpose}\n\n  {usage.line(name)}\n")
    keys = commented_keys((schema.CONF_DIR / f"{name}.yaml").read_text())
    named = {
        k: key for k, key in keys.items() if k.partition(".")[0] not in ("defaults", "hydra") and "_target_" not in k
    }
    assert named
    text = _words(page)
    for key, stated in named.items():
        assert f"{key}={stated.value}" in text if stated.value else key in text
        assert _words(stated.meaning) in text


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_it_lists_the_groups_that_the_command_reads(name: str) -> None:
    assert {line[0] for line in re.findall(r"^  ([a-z_/]+): (.*)$", help_page.page(name, []), re.M)} == GROUPS[name]


@pytest.mark.slow
def test_a_chosen_option_shows_its_own_keys() -> None:
    page = help_page.page("train", ["model/neck=uafm", "-cn", "quickstart"])
    assert "model/neck: uafm; or alignseg" in page
    assert "model.neck.dilations" not in page
    assert "data.train_images=1024" in page
    assert "data.train_images=512" not in page


@pytest.mark.slow
def test_studies_stand_with_the_command_that_runs_them(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [neck_ablation, _self_]\nquestion: Does it work? Nobody knows.\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "big.yaml").write_text("# All that fits.\ndefaults: [fastfcn]\n")
    train, benchmark = (help_page.page(name, ["-cd", str(tmp_path)]) for name in ("train", "benchmark"))
    assert re.search(r"^  mine +Does it work\?$", train, re.M)
    assert re.search(r"^  big +All that fits\.$", train, re.M)
    assert re.search(r"^  paper_speed +How much faster is JPU", benchmark, re.M)
    assert "  mine " not in benchmark
    assert "  paper_speed " not in train


@pytest.mark.slow
@pytest.mark.parametrize(("name", "given"), [("predict", ["input=photos"]), ("doctor", []), ("train", ["data=folder"])])
def test_missing_values_print_it(name: str, given: list[str], command: Command) -> None:
    done = command(name, *given)
    assert done.returncode == 1
    assert done.stdout == f"{help_page.page(name, given)}\n\n"
    assert done.stderr.startswith(f"error: {name} needs ")


def test_report_has_one(command: Command) -> None:
    asked, lacking = command("report", "--help"), command("report", "runs")
    assert (asked.returncode, lacking.returncode) == (0, 1)
    assert asked.stdout == lacking.stdout
    assert usage.line("report") in asked.stdout
    assert lacking.stderr.startswith("error: usage: ")


def test_comments_of_yaml() -> None:
    text = """# @package _global_
# The file.
# Two lines.
a: "x # y" # after a quoted sharp
# above
b:
  c: [1, 2] # nested
  d: http://x/#y
  # gap

  e:
"""
    keys = commented_keys(text)
    assert header(text) == "The file. Two lines."
    assert {name: (key.value, key.meaning) for name, key in keys.items()} == {
        "a": ('"x # y"', "after a quoted sharp"),
        "b": ("", "above"),
        "b.c": ("[1, 2]", "nested"),
        "b.d": ("http://x/#y", ""),
        "b.e": ("", ""),
    }


@pytest.mark.parametrize(
    ("words", "ordered"),
    [
        (["-cd", "a", "x=1", "-m", "y=2"], ["x=1", "y=2", "-cd", "a", "-m"]),
        (["x=1", "-cn=b", "--info", "y=2", "--info", "all"], ["x=1", "y=2", "-cn=b", "--info", "--info", "all"]),
        (["x=1", "-cd"], ["x=1", "-cd"]),
    ],
)
def test_flags_may_stand_anywhere(words: list[str], ordered: list[str]) -> None:
    assert overrides_first(words) == ordered


@pytest.mark.slow
def test_a_folder_of_options_may_stand_last(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "tiny.yaml").write_text("defaults: [shapes, _self_]\nsize: 33\n")
    for words in (["data=tiny", "-cd", "mine", "seed=7"], ["-cd", "mine", "data=tiny", "-cn", "quickstart", "seed=7"]):
        done = command("train", *words, "--cfg", "job")
        assert done.returncode == 0, done.stderr
        assert "seed: 7\n" in done.stdout
        assert "  size: 33\n" in done.stdout
