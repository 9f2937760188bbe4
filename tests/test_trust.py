"""A checkpoint is data: what it may name, what is built of it, and what is refused before anything is imported."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from fastfcn_pl import config, demo, report
from fastfcn_pl.benchmark import benchmark
from fastfcn_pl.contracts import UserError
from fastfcn_pl.convert import convert
from fastfcn_pl.evaluate import evaluate
from fastfcn_pl.export import export
from fastfcn_pl.predict import Predictor, predict
from fastfcn_pl.saving import moved
from fastfcn_pl.train import train
from tests.conftest import TINY

SHORT = [*TINY, "data.train_images=4", "data.val_images=1", "data.size=64", "data.batch_size=2", "data.num_workers=0"]
SHORT += ["callbacks.cost.repeats=0", "trainer.max_epochs=-1", "trainer.max_steps=1"]
FOREIGN = {"_target_": "foreign_part.Thing"}
PARTIAL = {**FOREIGN, "_partial_": True}
PLACES: dict[str, Any] = {
    "model": FOREIGN,
    "model.backbone": FOREIGN,
    "model.neck": PARTIAL,
    "model.head": PARTIAL,
    "model.aux_head": PARTIAL,
    "protocol": PARTIAL,
    "data": FOREIGN,
    "data.augmentation": FOREIGN,
    "loss": FOREIGN,
    "loss.terms.cross_entropy.loss": FOREIGN,
    "optimizer": PARTIAL,
    "optimizer.algorithm": PARTIAL,
    "scheduler": PARTIAL,
    "trainer": FOREIGN,
    "trainer.plugins": [FOREIGN],
    "callbacks.mine": FOREIGN,
    "logger.mine": FOREIGN,
}
NETWORK = {place for place in PLACES if place.startswith("model")} | {"protocol"}
BUILT = {
    "predict": NETWORK,
    "demo": NETWORK,
    "benchmark": NETWORK,
    "export": NETWORK | {"data"},
    "evaluate": NETWORK | {"data"},
    "resume": set(PLACES),
    "init_from": set(),
    "report": set(),
}
"""The parts of a checkpoint that each command builds; others it leaves alone."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that trained for a step."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(_compose("train", *SHORT, f"run_dir={folder}"))
    return folder


@pytest.fixture(autouse=True)
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there once `foreign_part` is imported, which can be."""
    found = tmp_path / "imported"
    text = f"open({str(found)!r}, 'w').close()\nimport os, torch\nclass Thing(torch.nn.Module): pass\n"
    (tmp_path / "foreign_part.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield found
    sys.modules.pop("foreign_part", None)


def _compose(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        return compose(name, list(overrides))


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    old = tree.get(last)
    tree[last] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value


def _hostile(run: Path, folder: Path, places: dict[str, Any]) -> Path:
    """Write the run's last checkpoint with `places` of its configuration changed, as that of a run in `folder`."""
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    tree = moved(content["hyper_parameters"]["config"], str(run), str(folder))
    for key in sorted(places):
        _set(tree, key, copy.deepcopy(places[key]))
    content["hyper_parameters"]["config"] = tree
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


class ServedError(Exception):
    """The page of the demo would be served now."""


def _demo(path: Path, *trust: str) -> None:
    def page(predictor: Predictor) -> None:
        assert isinstance(predictor, Predictor)
        raise ServedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "page", page)
        with pytest.raises(ServedError):
            demo.demo(_compose("demo", f"checkpoint={path}", *trust))


def _predict(path: Path, *trust: str) -> None:
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save("image.png")
    predict(_compose("predict", f"checkpoint={path}", "input=image.png", "output=out", "save=[labels]", *trust))
    assert Path("out/labels/image.png").is_file()


def _resume(path: Path, *trust: str) -> None:
    given = ["checkpoint=last", "trainer.max_steps=2", *trust]
    cfg = _compose("train", f"run_dir={path.parents[1]}", *given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastfcn_pl.launch.overrides", lambda: given[1:])
        train(cfg)


def _report(path: Path) -> None:
    folder = path.parents[1]
    (folder / ".hydra").mkdir(exist_ok=True)
    tree = torch.load(path, weights_only=True)["hyper_parameters"]["config"]
    (folder / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))
    hydra = {"job": {"name": "train", "config_name": "train"}, "overrides": {"hydra": [], "task": []}}
    hydra |= {"runtime": {"choices": {"data": "shapes"}, "config_sources": []}}
    (folder / ".hydra" / "hydra.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})))
    report.main([str(folder), "output=page"])


COMMANDS: dict[str, Callable[..., Any]] = {
    "predict": _predict,
    "demo": _demo,
    "benchmark": lambda path, *trust: benchmark(
        _compose(
            "benchmark",
            *(f"checkpoint={path}", "run_dir=.", "size=[64,64]", "repeats=1", "warm_up=0", "memory=false", *trust),
        )
    ),
    "export": lambda path, *trust: export(
        _compose("export", f"checkpoint={path}", "output=out.torchscript", "format=torchscript", *trust)
    ),
    "evaluate": lambda path, *trust: evaluate(_compose("evaluate", f"checkpoint={path}", "run_dir=scored", *trust)),
    "resume": _resume,
    "init_from": lambda path: train(_compose("train", *SHORT, f"init_from={path}", "run_dir=tuned")),
    "report": _report,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_no_part_of_others_runs(name: str, run: Path, tmp_path: Path, marker: Path) -> None:
    """Each place in a checkpoint is refused in one line if the command builds it, else left alone."""
    for place in sorted(BUILT[name]):
        path = _hostile(run, tmp_path / "theirs", {place: PLACES[place]})
        with pytest.raises(UserError) as caught:
            COMMANDS[name](path)
        assert f"checkpoint={path}: {place}" in str(caught.value), place
        assert "_target_=foreign_part.Thing is none of fastfcn_pl's options" in str(caught.value)
        assert "trust=[foreign_part]" in str(caught.value)
        assert "-cd" in str(caught.value)
        assert not marker.exists(), place
    left = {place: part for place, part in PLACES.items() if place not in BUILT[name]}
    if left:
        COMMANDS[name](_hostile(run, tmp_path / "theirs", left))
    assert not marker.exists()
    assert "foreign_part" not in sys.modules


@pytest.mark.slow
def test_convert_builds_nothing_of_a_file(run: Path, tmp_path: Path, marker: Path) -> None:
    path = _hostile(run, tmp_path / "theirs", PLACES)
    with pytest.raises(UserError, match=r"cannot be used"):
        convert(_compose("convert", f"source={path}", "output=out.ckpt"))
    assert not marker.exists()
