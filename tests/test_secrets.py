"""Secrets of a configuration and of the environment: the run gets them, no file and no line of output has them."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import TINY
from tests.fakes.camvid import write_camvid

pytestmark = pytest.mark.slow

FROM_ENVIRONMENT = {
    "HUB_TOKEN": "canary-token-1a2b3c",
    "LABEL_OF_MINE": "canary-plain-4d5e6f",
    "DATABASE": "postgres://carl:canary-database-7@db.example.org/runs",
    "WANDB_API_KEY": "local-" + "5ec4e7" * 6 + "5ec4",
    "HTTPS_PROXY": "http://proxy:canary-proxy-8@127.0.0.1:9",
}
LITERAL = {
    "password": "canary-password-9",
    "apiKey": "canary key with words 10",
    "address": "https://carl:canary-login-11@example.org/x",
    "query": "https://example.org/x?token=canary-query-12&X-Amz-Signature=canary-signature-13&size=3",
}
CANARIES = [
    "canary-token",
    "canary-plain",
    "canary-database",
    "5ec4e75ec4e7",
    "canary-proxy",
    "canary-password",
    "canary key",
    "canary-login",
    "canary-query",
    "canary-signature",
    "canary-netrc",
    "canary-default",
]
PART = '''
"""A part of the user's own, which needs secrets."""
import lightning as L

class Needs(L.Callback):
    def __init__(self, *, expected, fails=False, **given):
        import hashlib, json
        found = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
        assert found == expected, f"other values than the user's: {given}"
        self.given, self.fails = given, fails

    def on_train_start(self, trainer, module):
        import logging, warnings
        logging.getLogger("mine").warning("asking %s", self.given["address"])
        warnings.warn(f"the token is {self.given['hub']}")
        print("connected to", self.given["database"], "by", self.given["password"])
        if self.fails:
            raise RuntimeError(f"no answer with {self.given}")
'''
OPTIONS = [*TINY[:-1], "data=camvid", "data.batch_size=2", "data.num_workers=0", "data.augmentation.crop_size=48"]
OPTIONS += ["trainer.max_steps=2", "trainer.max_epochs=-1", "trainer.log_every_n_steps=1", "callbacks.cost.repeats=0"]
OPTIONS += ["logger=all", "logger.wandb.mode=offline", "logger.wandb.tags=['for:${oc.env:HUB_TOKEN}']"]


def _part(fails: bool = False) -> list[str]:
    """Return what sets up the user's part, with secrets of each kind."""
    from hashlib import sha256

    env = FROM_ENVIRONMENT
    given = {
        "hub": env["HUB_TOKEN"],
        "inside": f"of {env['LABEL_OF_MINE']} and more",
        "decoded": env["LABEL_OF_MINE"],
        "listed": ["first", env["HUB_TOKEN"]],
        "referred": env["HUB_TOKEN"],
        "default": "canary-default-14",
        "database": env["DATABASE"],
        **LITERAL,
    }
    expected = sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
    values = {
        "_target_": "my_part.Needs",
        "expected": expected,
        "fails": str(fails).lower(),
        "hub": "${oc.env:HUB_TOKEN}",
        "inside": "'of ${oc.env:LABEL_OF_MINE} and more'",
        "decoded": "'${oc.decode:${oc.env:LABEL_OF_MINE}}'",
        "listed": "[first,'${oc.env:HUB_TOKEN}']",
        "referred": "${callbacks.mine.hub}",
        "default": "'${oc.env:NO_SUCH_TOKEN,canary-default-14}'",
        "database": "${oc.env:DATABASE}",
        **{key: f"'{value}'" for key, value in LITERAL.items()},
    }
    return [f"+callbacks.mine.{key}={value}" for key, value in values.items()]


@pytest.fixture
def start(tmp_path: Path, command: Callable[..., Any]) -> Callable[..., Any]:
    """Run a command as a user with secrets; what it printed goes through the search, too."""
    (tmp_path / "my_part.py").write_text(PART)
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password canary-netrc-15\n")
    write_camvid(tmp_path / "CamVid", train=4, val=2)

    def run(module: str, *arguments: str, failing: bool = False, fresh: bool = False) -> Any:
        done = command(module, *arguments, fresh=fresh, NETRC=str(tmp_path / "netrc"), **FROM_ENVIRONMENT)
        assert (done.returncode != 0) == failing, done.stderr
        _clean("stdout", done.stdout.encode())
        _clean("stderr", done.stderr.encode())
        return done

    return run


def _clean(name: object, content: bytes) -> None:
    for canary in CANARIES:
        assert canary.encode() not in content, f"{canary} is in {name}: ...{_around(content, canary.encode())!r}..."


def _around(content: bytes, part: bytes) -> bytes:
    place = content.index(part)
    return content[max(0, place - 80) : place + 80]


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of all files below `folder`, those inside of archives by themselves."""
    for file in sorted(folder.rglob("*")):
        yield f"the name of {file}", str(file.relative_to(folder)).encode()
        if not file.is_file():
            continue
        content = file.read_bytes()
        yield str(file), content
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(file) as archive:
                yield from ((f"{file}:{name}", archive.read(name)) for name in archive.namelist())


def _search(folder: Path) -> int:
    files = 0
    for name, content in _contents(folder):
        _clean(name, content)
        files += 1
    return files


def test_a_run_and_what_is_made_of_it(start: Callable[..., Any], tmp_path: Path) -> None:
    root = f"data.root={tmp_path / 'CamVid'}"
    question = "question='What says https://carl:canary-login-11@example.org to ${oc.env:HUB_TOKEN}?'"
    done = start("train", *OPTIONS, root, question, "hydra.run.dir=run", *_part())
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
    again = [*OPTIONS, root, question, "hydra.run.dir=run", "checkpoint=auto", *_part()]
    assert "is done already" in start("train", *again).stdout
    (run / "results.json").unlink()
    (run / "confusion.csv").unlink()
    resumed = start("train", *again, "trainer.max_steps=2")
    assert "goes on" in resumed.stdout
    for folder in ("run", "score", "labels", "pages"):
        assert _search(tmp_path / folder) > 4
    assert {path.suffix for path in run.rglob("*")} >= {".ckpt", ".wandb", ".yaml", ".csv", ".json", ".md", ".log"}
    assert list(run.rglob("events.out.tfevents*"))


def test_a_secret_that_is_not_said_again_is_asked_for(start: Callable[..., Any], tmp_path: Path) -> None:
    root = f"data.root={tmp_path / 'CamVid'}"
    quiet = [option for option in OPTIONS if not option.startswith("logger")] + ["logger=none"]
    start("train", *quiet, root, "hydra.run.dir=run", *_part())
    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    mine = [checkpoint, "trust=[my_part]"]
    failed = start("train", *mine, failing=True)
    assert failed.stderr.count("error: ") == 1
    assert "Traceback" not in failed.stderr
    assert re.search(r"callbacks\.mine\.\w+.*set (it again with )?callbacks\.mine\.", failed.stderr)
    start("train", *mine, *_part()[3:])
    _search(tmp_path / "run")


def test_a_run_that_fails_and_a_sweep(start: Callable[..., Any], tmp_path: Path) -> None:
    root = f"data.root={tmp_path / 'CamVid'}"
    common = [*OPTIONS, root, "optimizer.lr=0.01,0.02", "hydra.sweep.dir=sweep"]
    left_out = ",".join(option.lstrip("+").partition("=")[0] for option in [*OPTIONS, root, *_part()[:3]])
    common += ["hydra.sweep.subdir='${hydra.job.num} ${hydra.job.override_dirname}'"]
    common += [f"hydra.job.config.override_dirname.exclude_keys=[{left_out}]"]
    failed = start("train", "-m", *common, *_part(fails=True), failing=True)
    assert "RuntimeError: no answer" in failed.stderr
    jobs = [path for path in (tmp_path / "sweep").iterdir() if path.is_dir()]
    assert len(jobs) == 2
    assert all("no answer" in (job / "error.txt").read_text() for job in jobs)
    assert all("optimizer.lr=0.0" in job.name for job in jobs)
    assert _search(tmp_path / "sweep") > 20
    start("report", "sweep", "output=pages")
    assert _search(tmp_path / "pages") > 1
    single = start("train", *OPTIONS, root, "hydra.run.dir=run", *_part(fails=True), "+debug=true", failing=True)
    assert "Traceback" in single.stderr
    mistake = start("train", *OPTIONS, f"{root}/${{oc.env:LABEL_OF_MINE}}", "hydra.run.dir=other", failing=True)
    assert "Traceback" not in mistake.stderr
    assert "${oc.env:LABEL_OF_MINE}" in mistake.stderr
    _search(tmp_path / "run")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are processes")
def test_ranks_get_the_values_and_no_file_does(start: Callable[..., Any], tmp_path: Path) -> None:
    quiet = [option for option in OPTIONS if not option.startswith("logger")] + ["logger=none"]
    two = ["trainer.devices=2", "trainer.strategy=ddp"]
    start("train", *quiet, f"data.root={tmp_path / 'CamVid'}", "hydra.run.dir=run", *two, *_part(), fresh=True)
    assert not (tmp_path / "run" / ".hydra" / "job.yaml").exists()
    assert _search(tmp_path / "run") > 8
