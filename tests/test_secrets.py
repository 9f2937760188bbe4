"""Secrets of a configuration and of the environment: the run gets them, no file and no line of output has them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import TINY
from tests.fakes.camvid import write_camvid
from tests.support.secrets import ENVIRONMENT, PART, assert_clean, part, searched

pytestmark = pytest.mark.slow

OPTIONS = [*TINY[:-1], "data=camvid", "data.batch_size=2", "data.num_workers=0", "data.augmentation.crop_size=48"]
OPTIONS += ["trainer.max_steps=2", "trainer.max_epochs=-1", "trainer.log_every_n_steps=1", "callbacks.cost.repeats=0"]
OPTIONS += ["logger=all", "logger.wandb.mode=offline", "logger.wandb.tags=['for:${oc.env:HUB_TOKEN}']"]


@pytest.fixture
def start(tmp_path: Path, command: Callable[..., Any]) -> Callable[..., Any]:
    """Run a command as a user with secrets; what it printed goes through the search, too."""
    (tmp_path / "my_part.py").write_text(PART)
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password canary-netrc-15\n")
    write_camvid(tmp_path / "CamVid", train=4, val=2)

    def run(module: str, *arguments: str, failing: bool = False) -> Any:
        done = command(module, *arguments, NETRC=str(tmp_path / "netrc"), **ENVIRONMENT)
        assert (done.returncode != 0) == failing, done.stderr
        assert_clean("stdout", done.stdout.encode())
        assert_clean("stderr", done.stderr.encode())
        return done

    return run


def test_a_run_and_what_is_made_of_it(start: Callable[..., Any], tmp_path: Path) -> None:
    root = f"data.root={tmp_path / 'CamVid'}"
    question = "question='What says https://carl:canary-login-11@example.org to ${oc.env:HUB_TOKEN}?'"
    done = start("train", *OPTIONS, root, question, "hydra.run.dir=run", *part())
    assert "connected to" in done.stdout
    run = tmp_path / "run"
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())["callbacks"]["mine"]
    assert config["hub"] == "${oc.env:HUB_TOKEN}"
    assert config["inside"] == "of ${oc.env:LABEL_OF_MINE} and more"
    assert config["listed"] == ["first", "${oc.env:HUB_TOKEN}"]
    assert (config["password"], config["address"]) == ("***", "https://***@example.org/x")
    assert config["query"] == "https://example.org/x?token=***&X-Amz-Signature=***&size=3"
    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    start("evaluate", checkpoint, root, "trainer.accelerator=cpu", "hydra.run.dir=score")
    start("predict", checkpoint, f"input={tmp_path / 'CamVid' / 'val'}", "output=labels")
    start("report", "run", "output=pages")
    again = [*OPTIONS, root, question, "hydra.run.dir=run", "resume=auto", *part()]
    assert "is done already" in start("train", *again).stdout
    (run / "results.json").unlink()
    (run / "confusion.csv").unlink()
    resumed = start("train", *again, "trainer.max_steps=2")
    assert "was stopped, and resumes" in resumed.stdout
    for folder in ("run", "score", "labels", "pages"):
        assert searched(tmp_path / folder) > 4
    assert {path.suffix for path in run.rglob("*")} >= {".ckpt", ".wandb", ".yaml", ".csv", ".json", ".md", ".log"}
    assert list(run.rglob("events.out.tfevents*"))


def test_a_secret_that_is_not_said_again_is_asked_for(start: Callable[..., Any], tmp_path: Path) -> None:
    root = f"data.root={tmp_path / 'CamVid'}"
    quiet = [option for option in OPTIONS if not option.startswith("logger")] + ["logger=none"]
    start("train", *quiet, root, "hydra.run.dir=run", *part())
    checkpoint = "resume=run/checkpoints/last.ckpt"
    mine = [checkpoint, "trust=[my_part]"]
    failed = start("train", *mine, failing=True)
    assert failed.stderr.count("error: ") == 1
    assert "Traceback" not in failed.stderr
    assert re.search(r"callbacks\.mine\.\w+.*set (it again with )?callbacks\.mine\.", failed.stderr)
    start("train", *mine, *part()[3:])
    searched(tmp_path / "run")


def test_a_run_that_fails_and_a_sweep(start: Callable[..., Any], tmp_path: Path) -> None:
    root = f"data.root={tmp_path / 'CamVid'}"
    common = [*OPTIONS, root, "optimizer.lr=0.01,0.02", "hydra.sweep.dir=sweep"]
    left_out = ",".join(option.lstrip("+").partition("=")[0] for option in [*OPTIONS, root, *part()[:3]])
    common += ["hydra.sweep.subdir='${hydra.job.num} ${hydra.job.override_dirname}'"]
    common += [f"hydra.job.config.override_dirname.exclude_keys=[{left_out}]"]
    failed = start("train", "-m", *common, *part(fails=True), failing=True)
    assert "RuntimeError: no answer" in failed.stderr
    jobs = [path for path in (tmp_path / "sweep").iterdir() if path.is_dir()]
    assert len(jobs) == 2
    assert all("no answer" in (job / "error.txt").read_text() for job in jobs)
    assert all("optimizer.lr=0.0" in job.name for job in jobs)
    assert searched(tmp_path / "sweep") > 20
    start("report", "sweep", "output=pages")
    assert searched(tmp_path / "pages") > 1
    single = start("train", *OPTIONS, root, "hydra.run.dir=run", *part(fails=True), "+debug=true", failing=True)
    assert "Traceback" in single.stderr
    mistake = start("train", *OPTIONS, f"{root}/${{oc.env:LABEL_OF_MINE}}", "hydra.run.dir=other", failing=True)
    assert "Traceback" not in mistake.stderr
    assert "${oc.env:LABEL_OF_MINE}" in mistake.stderr
    searched(tmp_path / "run")
