"""Configurations as they are stored in files, and as a resumed run restores them."""

from __future__ import annotations

import io
import logging
import sys

import pytest
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from fastfcn_pl.config.stored_config import is_withheld, resolve_config, restore_withheld, storable_config
from fastfcn_pl.core import redaction
from fastfcn_pl.engine import console

TEXT = """
run_dir: runs/${oc.env:LABEL}
data:
  root: ${oc.env:LABEL}/camvid
  hub: {token: "${oc.env:HUB_TOKEN}", url: "https://me:pass-word@host.org/x", password: literal-password}
  files: [one, "${oc.env:LABEL}", "${run_dir}/list.txt"]
  decoded: ${oc.decode:${oc.env:NUMBERS}}
  default: ${oc.env:NO_SUCH,fallback}
  by_name: ${oc.env:${data.variable}}
  variable: LABEL
  referred: "Bearer ${data.hub.token}"
  whole: ${data.hub}
  plain: ${data.variable} and ${seed}
model: {name: "${oc.env:NETWORK}", key: "${oc.env:HUB_TOKEN}"}
seed: 3
escaped: \\${oc.env:LABEL}
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_replacements", {})
    monkeypatch.setattr(redaction, "_pattern", None)
    for name, value in {
        "LABEL": "label-of-mine",
        "HUB_TOKEN": "hub-token-1",
        "NUMBERS": "[1, 2]",
        "NETWORK": "tiny",
    }.items():
        monkeypatch.setenv(name, value)


def test_what_came_from_the_environment_stays_an_interpolation() -> None:
    kept = storable_config(OmegaConf.create(TEXT))
    assert kept["data"] == {
        "root": "${oc.env:LABEL}/camvid",
        "hub": {"token": "${oc.env:HUB_TOKEN}", "url": "https://***@host.org/x", "password": "***"},
        "files": ["one", "${oc.env:LABEL}", "${run_dir}/list.txt"],
        "decoded": "${oc.decode:${oc.env:NUMBERS}}",
        "default": "${oc.env:NO_SUCH,fallback}",
        "by_name": "${oc.env:${data.variable}}",
        "variable": "LABEL",
        "referred": "Bearer ${data.hub.token}",
        "whole": "${data.hub}",
        "plain": "LABEL and 3",
    }
    assert kept["run_dir"] == "runs/label-of-mine", "a folder's name says it anyway"
    assert kept["model"] == {"name": "tiny", "key": "${oc.env:HUB_TOKEN}"}, (
        "a network can be rebuilt from its checkpoint"
    )
    for text in ("hub-token-1", "pass-word", "literal-password"):
        assert text not in yaml.safe_dump(kept)


def test_the_values_are_those_of_the_configuration() -> None:
    cfg = OmegaConf.create(TEXT)
    again = OmegaConf.create(yaml.safe_load(yaml.safe_dump(resolve_config(cfg))))
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(cfg, resolve=True)


def test_a_variable_that_is_not_set_is_a_mistake() -> None:
    with pytest.raises(InterpolationResolutionError, match="NO_SUCH"):
        storable_config(OmegaConf.create({"a": "${oc.env:NO_SUCH}"}))


def test_a_run_that_goes_on_gets_back_what_is_said_again() -> None:
    cfg = OmegaConf.create(TEXT)
    restored = OmegaConf.create(restore_withheld(storable_config(cfg), cfg))
    assert OmegaConf.to_container(restored, resolve=True) == OmegaConf.to_container(cfg, resolve=True)


def test_nothing_is_resolved_that_a_file_alone_names() -> None:
    kept = {
        "a": "${oc.env:HUB_TOKEN}",
        "b": ["${oc.env:HUB_TOKEN}"],
        "c": "***",
        "d": "${run_dir}",
        "same": "${oc.env:LABEL}",
    }
    mine = OmegaConf.create({"a": "${oc.env:LABEL}", "b": [], "same": "${oc.env:LABEL}"})
    run = OmegaConf.create(restore_withheld(kept, mine))
    assert OmegaConf.to_container(run, resolve=True) == {
        "a": "${oc.env:HUB_TOKEN}",
        "b": ["${oc.env:HUB_TOKEN}"],
        "c": "***",
        "d": "${run_dir}",
        "same": "label-of-mine",
    }
    assert [key for key in run if is_withheld(run[key])] == ["a", "b", "c", "d"]


def test_prints_and_logs_have_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    out, log = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", _Stream(out))
    monkeypatch.setattr(sys, "argv", ["train", "data.password=of the command line", "x=https://me:in-address@host"])
    monkeypatch.setenv("OTHER_API_KEY", "in-the-environment")
    factory = logging.getLogRecordFactory()
    console.hide_secrets()
    console.hide_secrets()
    try:
        resolve_config(OmegaConf.create(TEXT))
        print(
            "of the command line, in-address, in-the-environment, literal-password, pass-word, hub-token-1",
            "label-of-mine",
        )
        logger = logging.Logger("mine")
        logger.addHandler(logging.StreamHandler(log))
        logger.warning("said %s", "hub-token-1")
        try:
            raise ValueError("literal-password")
        except ValueError:
            logger.exception("failed")
    finally:
        logging.setLogRecordFactory(factory)
    assert out.getvalue() == "***, ***, ***, ***, ***, *** ${oc.env:LABEL}\n"
    assert "ValueError: ***" in log.getvalue()
    assert "hub-token-1" not in log.getvalue()


class _Stream:
    """Stream with a replaceable `write`, like a terminal's."""

    def __init__(self, target: io.StringIO) -> None:
        self.write = target.write

    def flush(self) -> None:
        pass
