"""A checkpoint is data: it may name known parts only, and others are rejected before they are imported."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from fastfcn_pl import Predictor
from fastfcn_pl.config.plain_data import plain_data
from fastfcn_pl.config.stored_config import restore_withheld
from fastfcn_pl.config.trust import Trust
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import hydra_job
from fastfcn_pl.engine.checkpoint import Checkpoint, load
from fastfcn_pl.tools import demo
from fastfcn_pl.tools.benchmark.command import benchmark
from fastfcn_pl.tools.convert import convert
from fastfcn_pl.tools.evaluate import evaluate
from fastfcn_pl.tools.export.command import export
from fastfcn_pl.tools.predict.command import predict
from fastfcn_pl.tools.report.command import report
from fastfcn_pl.tools.train import train
from fastfcn_pl.training.checkpoint_io import moved
from tests.conftest import TINY, composed

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
    "start from weights": set(),
    "report": set(),
}
"""The parts of a checkpoint that each command builds; others it leaves alone."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that trained for one step."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(composed(*SHORT, f"run_dir={folder}"))
    return folder


@pytest.fixture(autouse=True)
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the path of a file that importing the module `foreign_part` creates."""
    found = tmp_path / "imported"
    text = f"open({str(found)!r}, 'w').close()\nimport os, torch\nclass Thing(torch.nn.Module): pass\n"
    text += "def partial(*args, **keys): return Thing()\nthing = Thing()\n"
    (tmp_path / "foreign_part.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield found
    sys.modules.pop("foreign_part", None)


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    old = tree.get(last)
    tree[last] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value


def _hostile(run: Path, folder: Path, places: dict[str, Any]) -> Path:
    """Write the run's last checkpoint, with `places` of its configuration changed, to a run in `folder`."""
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    tree = moved(content["hyper_parameters"]["config"], str(run), str(folder))
    for key in sorted(places):
        _set(tree, key, copy.deepcopy(places[key]))
    content["hyper_parameters"]["config"] = tree
    return _save(content, folder)


def _save(content: dict[str, Any], folder: Path) -> Path:
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


class ServedError(Exception):
    """Raised instead of serving the page of the demo."""


def _demo(path: Path, *trust: str) -> None:
    def page(predictor: Predictor) -> None:
        assert isinstance(predictor, Predictor)
        raise ServedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "page", page)
        with pytest.raises(ServedError):
            demo.demo(composed(f"checkpoint={path}", *trust, name="demo"))


def _predict(path: Path, *trust: str) -> None:
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save("image.png")
    words = ["input=image.png", "output=out", "save=[labels]", "overwrite=true", *trust]
    predict(composed(f"checkpoint={path}", *words, name="predict"))
    assert Path("out/labels/image.png").is_file()


def _resume(path: Path, *trust: str) -> None:
    given = ["resume=last", *trust]
    cfg = composed(f"run_dir={path.parents[1]}", *given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastfcn_pl.engine.hydra_job.overrides", lambda: given[1:])
        train(cfg)


def _report(path: Path) -> None:
    folder = path.parents[1]
    (folder / ".hydra").mkdir(exist_ok=True)
    tree = torch.load(path, weights_only=True)["hyper_parameters"]["config"]
    (folder / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))
    hydra = {"job": {"name": "train", "config_name": "train"}, "overrides": {"hydra": [], "task": []}}
    hydra |= {"runtime": {"choices": {"data": "shapes"}, "config_sources": []}}
    (folder / ".hydra" / "hydra.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})))
    report([str(folder), "output=page"])


COMMANDS: dict[str, Callable[..., Any]] = {
    "predict": _predict,
    "demo": _demo,
    "benchmark": lambda path, *trust: benchmark(
        composed(
            *(f"checkpoint={path}", "run_dir=.", "size=[64,64]", "repeats=1", "warm_up=0", "memory=false", *trust),
            name="benchmark",
        )
    ),
    "export": lambda path, *trust: export(
        composed(f"checkpoint={path}", "output=out.torchscript", "format=torchscript", *trust, name="export")
    ),
    "evaluate": lambda path, *trust: evaluate(
        composed(f"checkpoint={path}", "run_dir=scored", *trust, name="evaluate")
    ),
    "resume": _resume,
    "start from weights": lambda path: train(composed(*SHORT, f"checkpoint={path}", "run_dir=tuned")),
    "report": _report,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_no_part_of_others_runs(name: str, run: Path, tmp_path: Path, marker: Path) -> None:
    """A foreign part is rejected in one line if the command builds it, and ignored otherwise."""
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
        convert(composed(f"source={path}", "output=out.ckpt", name="convert"))
    assert not marker.exists()


def _refusal(parts: dict[str, Any], trust: Trust | None = None, folder: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        (trust or Trust()).check(parts, "x.ckpt", folder)
    line = str(caught.value)
    assert line.startswith("checkpoint=x.ckpt: ")
    assert "\n" not in line
    return line


JPU = "fastfcn_pl.models.necks.jpu.JPU"


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({"neck": {"deep": [{"er": [FOREIGN]}]}}, "model.neck.deep.0.er.0._target_"),
        ({"_target_": JPU, "_args_": [FOREIGN]}, "model._args_.0._target_"),
        ({"_target_": JPU, "_recursive_": False, "x": {"_target_": "os.system"}}, "model.x._target_"),
        ({"_target_": "${other}"}, "model._target_"),
        ({"_target_": ["foreign_part.Thing"]}, "model._target_"),
        ({"_target_": {"a": JPU}}, "model._target_"),
        ({"_target_": None}, "model._target_"),
        ({"_target_": f"{JPU} "}, "model._target_"),
        ({"_target_": f"{JPU}.__init__"}, "model._target_"),
        ({"_target_": "fastfcn_pl.models.necks.jpu.torch.hub.load"}, "model._target_"),
        ({"_target_": "fastfcn_pl.engine.checkpoint.Path.unlink"}, "model._target_"),
        ({"_target_": "fastfcn_pl.tools.prepare.download.Download"}, "model._target_"),
        ({"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "save_dir": "/"}, "model._target_"),
    ],
)
def test_a_target_is_the_very_name_of_an_option_for_that_part(node: Any, key: str, marker: Path) -> None:
    assert f": {key}=" in _refusal({"model": node})
    assert not marker.exists()


@pytest.mark.slow
def test_the_options_of_conf_are_admitted_for_their_part() -> None:
    for overrides in (["model=fastfcn_encnet_r50"], ["data=ade20k", "optimizer=adamw", "logger=all", "loss=dice"]):
        cfg = composed(*overrides, "run_dir=/run", "model.neck.width=8")
        OmegaConf.set_struct(cfg, False)
        cfg.logger = {}  # what it takes of a job of Hydra
        cfg.callbacks.pop("facts")
        Trust().check(OmegaConf.to_container(cfg, resolve=True), "x.ckpt", "/run")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "home"),
    [
        ("foreign_part.os.system", "posix"),
        ("foreign_part.torch.nn.Identity", "torch"),
        ("foreign_part.Thing.load_state_dict", "torch"),
        ("foreign_part.Thing.__class__", "builtins"),
        ("foreign_part.thing.eval", "torch"),
    ],
)
def test_trust_is_for_what_a_package_defines_itself(target: str, home: str) -> None:
    trust = Trust.of(["foreign_part"])
    assert f"{target} is of {home}" in _refusal({"model": {"_target_": target}}, trust)
    trust.check({"model": FOREIGN}, "x.ckpt")
    trust.check({"model": {"_target_": "foreign_part.partial"}}, "x.ckpt")


def test_trust_names_whole_packages_or_everything(marker: Path) -> None:
    for words in (["foreign"], ["foreign_part.Other"], "foreign_par", [], None, False):
        assert "model._target_" in _refusal({"model": FOREIGN}, Trust.of(words))
    assert "loss.x._target_" in _refusal(
        {"model": FOREIGN, "loss": {"x": {"_target_": "other.Thing"}}}, Trust.of(["foreign_part"])
    )
    assert not marker.exists(), "imported before all of it was looked at"
    for words in ("foreign_part", ["foreign_part.Thing"], True):
        Trust.of(words).check({"model": FOREIGN}, "x.ckpt")
    assert "is an interpolation" in _refusal({"model": {"width": "${oc.env:HOME}"}}, Trust.of(True))
    for words in ([3], ["a b"], ["../x"], 1, {"a": 1}, ["os;"]):
        with pytest.raises(UserError, match="give packages or modules by their names"):
            Trust.of(words)


def test_what_this_job_says_itself_is_admitted_at_its_place() -> None:
    own = {"model": {"head": FOREIGN}, "logger": {"w": {"project": "${oc.env:P}", "dir": "/shared"}}}
    trust = Trust.of([], OmegaConf.create(own))
    trust.check(own, "x.ckpt", "/run")
    trust.check({"model": {"neck": FOREIGN}}, "x.ckpt")
    assert "loss._target_" in _refusal({"loss": FOREIGN}, trust)
    assert "logger.w.entity=${oc.env:P} is an interpolation" in _refusal(
        {"logger": {"w": {"entity": "${oc.env:P}"}}}, trust
    )
    for changed in ("${oc.env:TOKEN}", "a ${oc.env:P}", "\\${oc.env:P}", "${hydra:runtime.cwd}", "${model.x}"):
        assert "logger.w.project" in _refusal({"logger": {"w": {"project": changed}}}, trust)


@pytest.mark.parametrize("value", ["/elsewhere/x", "/run/../x", "~/x", "../x", "http://host/x", "/run2/x"])
def test_a_resumed_run_does_not_write_elsewhere(value: str) -> None:
    for part in ("trainer", "callbacks", "logger"):
        assert f"{part}.x.dirpath={value} leads out of the run's folder /run" in _refusal(
            {part: {"x": {"dirpath": value}}}, folder="/run"
        )
    Trust().check({"logger": {"x": {"dirpath": value}}}, "x.ckpt")  # not built
    Trust.of(True).check({"logger": {"x": {"dirpath": value}}}, "x.ckpt", "/run")
    Trust().check({"callbacks": {"x": {"a": "/run/overlays", "b": "val/mIoU", "c": "group/name"}}}, "x.ckpt", "/run")


@pytest.mark.parametrize("name", ["hf-hub:someone/net", "local-dir:/net", "hf_hub:someone/net"])
def test_no_network_is_fetched_for_a_file(name: str) -> None:
    assert "model.backbone.name" in _refusal({"model": {"backbone": {"name": name}}})
    Trust.of(True).check({"model": {"backbone": {"name": name}}}, "x.ckpt")


def test_plain_data_is_small_and_plain() -> None:
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    bomb: Any = ["x"] * 10
    for _ in range(9):
        bomb = [bomb] * 10
    loop: list[Any] = []
    loop.append(loop)
    for value in (deep, bomb, loop, torch.zeros(1).expand(10**9), np.float64(1), b"x", {(1,): 2}, [{None: 1}], print):
        with pytest.raises(UserError, match="configuration"):
            plain_data({"a": value})
    assert plain_data({1: (1, "a"), "b": {2.5: None}}) == {1: [1, "a"], "b": {2.5: None}}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("start from weights", "report")])
def test_own_parts_that_are_trusted(name: str, own_run: Path) -> None:
    path = own_run / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match=r"model.neck._target_=own_part.Mixer is none .* trust=\[own_part\]"):
        COMMANDS[name](path)
    COMMANDS[name](path, "trust=[own_part]")


@pytest.mark.slow
def test_own_parts_from_python(own_run: Path) -> None:
    path = own_run / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="own_part"):
        load(path)
    assert type(load(path, trust=["own_part"]).model.neck).__name__ == "Mixer"
    assert type(load(path, trust=True).model.neck).__name__ == "Mixer"
    assert Predictor(path, "cpu", trust=["own_part"])(np.zeros((40, 56, 3), np.uint8)).shape == (40, 56)


@pytest.mark.slow
def test_own_parts_in_a_folder_of_options(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """With `-cd`, a job of a sweep, prediction and resuming work. Without it, the last two are rejected."""
    _write_own_part(tmp_path)
    option = tmp_path / "my_conf" / "model" / "neck" / "mixer.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("_target_: own_part.Mixer\n_partial_: true\nwidth: 8\n")
    (tmp_path / "my_conf" / ".hidden").mkdir()
    (tmp_path / "my_conf" / ".hidden" / "config.yaml").write_text("_target_: foreign_part.Thing\n")
    short = [o for o in SHORT if not o.startswith("model.neck")]
    done = command("train", "-cd", "my_conf", "-m", "model/neck=mixer", *short, "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    path = "sweep/0/checkpoints/last.ckpt"
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save("image.png")
    words = ["predict", f"checkpoint={path}", "input=image.png", "output=out"]
    done = command(*words)
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"error: checkpoint={path}: model.neck._target_=own_part.Mixer is none of fastfcn_pl's")
    for given in (["-cd", "my_conf"], [f"hydra.searchpath=[file://{tmp_path}/my_conf]"]):
        done = command(*words, "overwrite=true", *given)
        assert done.returncode == 0, done.stderr
    done = command("train", f"resume={path}")
    assert "own_part.Mixer is none" in done.stderr
    done = command("train", f"resume={path}", "-cd", "my_conf")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of a run with the user's own neck."""
    folder = tmp_path_factory.mktemp("own")
    _write_own_part(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        neck = ["model/neck=none", "+model.neck.width=8", "model.neck._target_=own_part.Mixer"]
        train(composed(*[o for o in SHORT if not o.startswith("model.neck")], *neck, f"run_dir={folder}/run"))
        yield folder / "run"


def _write_own_part(folder: Path) -> None:
    (folder / "own_part.py").write_text(
        "import torch\n"
        "class Mixer(torch.nn.Module):\n"
        "    def __init__(self, in_info, align_corners, *, width):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Conv2d(in_info.channels[-3], width, 1)\n"
        "        self.out_info = in_info.append(width, in_info.strides[-3])\n"
        "    def forward(self, levels):\n"
        "        return [*levels, self.layer(levels[-3])]\n"
    )


@pytest.mark.slow
def test_interpolations_of_a_file_are_not_resolved(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_PLACE", "hunter2")
    env = "${oc.env:SECRET_PLACE}"
    path = _hostile(run, tmp_path / "theirs", {"logger": {"tb": {"name": env}}, "loss": env, "data.augmentation": env})
    _predict(path)  # what is not built may hold them
    path = _hostile(run, tmp_path / "theirs", {"model.backbone.name": env})
    with pytest.raises(UserError, match=r"model.backbone.name=\$\{oc.env:SECRET_PLACE\} is an interpolation") as caught:
        _predict(path)
    assert "hunter2" not in str(caught.value)
    path = _hostile(run, tmp_path / "theirs", {"data.size": env, "trainer.precision": env})
    with pytest.raises(UserError, match=r"data.size=\$\{oc.env:SECRET_PLACE\} is an interpolation.*set data.size="):
        COMMANDS["evaluate"](path, "trainer.precision=32-true")
    with pytest.raises(UserError, match=r"trainer.precision=\$\{oc.env:SECRET_PLACE\} is an interpolation"):
        COMMANDS["evaluate"](path, "+data.size=64")
    COMMANDS["evaluate"](path, "+data.size=64", "trainer.precision=32-true")
    path = _hostile(run, tmp_path / "theirs", {"callbacks.last.every_n_steps": env})
    with pytest.raises(
        UserError, match=r"callbacks.last.every_n_steps=\\*\$\{oc.env:SECRET_PLACE\} is an interpolation"
    ):
        _resume(path)
    _resume(path, "callbacks.last.every_n_steps=1")


@pytest.mark.parametrize("backslashes", range(5))
def test_a_text_of_a_resumed_run_stays_a_text(backslashes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study's question may contain an interpolation, which is not resolved."""
    monkeypatch.setenv("SECRET_PLACE", "hunter2")
    text = "why " + "\\" * backslashes + "${oc.env:SECRET_PLACE}?"
    kept = restore_withheld({"question": text}, OmegaConf.create({"question": None}))
    assert OmegaConf.create(kept).question == text


def test_choices_of_the_run_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices are read from a file of the run, and written to results and W&B."""
    monkeypatch.setenv("SECRET_PLACE", "hunter2")
    file = tmp_path / ".hydra" / "hydra.yaml"
    file.parent.mkdir()
    file.write_text("hydra: {runtime: {choices: {data: camvid, model: '${oc.env:SECRET_PLACE}', 'hydra/x': y}}}")
    assert hydra_job.choices(str(tmp_path)) == {"data": "camvid"}
    for text in ("[]", "hydra: ${oc.env:SECRET_PLACE}", "hydra: {runtime: 3}", ""):
        file.write_text(text)
        assert hydra_job.choices(str(tmp_path)) == {}
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    for text in ("\n".join(lines), "[" * 5000, "{a: b: c}", "a: !!python/object/apply:os.system [ls]"):
        file.write_text(text)
        with pytest.raises(UserError, match="cannot be read"):
            hydra_job.choices(str(tmp_path))


@pytest.mark.slow
def test_a_file_takes_no_more_memory_than_it_holds(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    huge = torch.zeros(1).expand(2**40)
    parameters = content["hyper_parameters"]
    spec, tree = parameters["spec"], parameters["config"]
    wide = copy.deepcopy(tree)
    wide["model"]["neck"]["width"] = 2**24
    for changed, words in (
        ({"state_dict": {**content["state_dict"], "model.head.x": huge}}, "its state dict claims more values than"),
        ({"state_dict": {"model.x": torch.zeros(2**40, device="meta")}}, "model.x is no tensor with a value"),
        ({"state_dict": {"model.x": torch.zeros(3).to_sparse()}}, "model.x is no tensor with a value"),
        ({"hyper_parameters": {"spec": {**spec, "classes": huge}, "config": tree}}, "holds a Tensor"),
        ({"hyper_parameters": {"spec": {**spec, "classes": [3]}, "config": tree}}, "is not a string"),
        ({"hyper_parameters": {"spec": spec, "config": "a: b"}}, "holds no configuration"),
        ({"hyper_parameters": {"spec": spec, "config": {}}}, "it is damaged"),
        ({"hyper_parameters": {"spec": spec, "config": wide}}, "have another shape: model.head"),
        (
            {"state_dict": {"head.conv5.0.weight": huge, "pretrained.conv1.0.weight": huge}, "hyper_parameters": 0},
            "claims",
        ),
    ):
        path = _save({**content, **changed}, tmp_path / "theirs")
        with pytest.raises(UserError) as caught:
            load(path)
        assert words in str(caught.value)
    with ZipFile(path) as archive, ZipFile(tmp_path / "small.ckpt", "w", ZIP_DEFLATED) as small:
        for entry in archive.infolist():
            small.writestr(entry.filename, archive.read(entry))
        small.writestr("archive/data/more", bytes(10**8))
    with pytest.raises(UserError, match="claims to hold more than its size"):
        Checkpoint.read(tmp_path / "small.ckpt")
