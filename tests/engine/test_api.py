"""The Python API: its examples run, its mistakes are one line, and importing it imports nothing."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import fastfcn_pl
from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.segmenter import Segmenter
from tests.conftest import ROOT
from tests.fakes.camvid import write_camvid
from tests.fakes.hub_server import client_of, hub_server
from tests.support.checkpoints import write_checkpoint

TINY: dict[str, Any] = {"backbone.name": "test_resnet", "neck.width": 8, "head.channels": 8, "aux_head.channels": 8}


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with a photograph and a run, and a hub, as the examples name them."""
    Image.new("RGB", (64, 48), (90, 120, 60)).save(tmp_path / "photo.jpg")
    write_checkpoint(tmp_path / "runs" / "camvid" / "checkpoints" / "best.ckpt")
    monkeypatch.chdir(tmp_path)
    with hub_server() as hub, client_of(hub.url, str(tmp_path / "cache")):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", fastfcn_pl.__all__)
def test_its_examples_run(name: str, run_folder: None) -> None:
    value = getattr(fastfcn_pl, name)
    (example,) = doctest.DocTestFinder(recurse=False).find(value, name, module=False, globs={})
    assert example.examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(example, out=sys.__stdout__.write).failed == 0


def test_importing_it_imports_the_standard_library_alone() -> None:
    code = "import sys; known = set(sys.modules); import fastfcn_pl; print(*(set(sys.modules) - known))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    modules = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert modules == {"fastfcn_pl"}


def test_it_lists_its_names_and_no_others() -> None:
    assert set(fastfcn_pl.__all__) <= set(dir(fastfcn_pl))
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        fastfcn_pl.create_modle  # noqa: B018


@pytest.mark.slow
def test_options_and_keys_change_a_recipe() -> None:
    keys = {**TINY, "neck.dilations": (1, 2), "head.dropout": 0.25}
    model = fastfcn_pl.create_model(num_classes=3, pretrained=False, **keys)
    assert [branch[0].dilation for branch in model.neck.branches] == [(1, 1), (2, 2)]
    assert model.head.layers[1].p == 0.25
    dilated = fastfcn_pl.create_model(
        num_classes=3, pretrained=False, backbone="resnet18", neck="dilated", head="psp", aux_head="none"
    )
    assert dilated.backbone.out_info.strides == (4, 8, 8, 8)
    assert dilated.aux_head is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: fastfcn_pl.create_model("fastfnc", num_classes=2),
            "model=fastfnc: no such option; did you mean fastfcn",
        ),
        (
            lambda: fastfcn_pl.create_model(num_classes=2, neck="jpuu"),
            "model/neck=jpuu: no such option; did you mean jpu",
        ),
        (lambda: fastfcn_pl.create_model(num_classes=2, neck=3), "model/neck=3: no such option; choose from"),
        (lambda: fastfcn_pl.create_model(num_classes=0), "num_classes=0: give 1 or more"),
        (
            lambda: fastfcn_pl.create_model(num_classes=2, pretrained=False, **{"neck.widht": 8}),
            "neck.widht: no such key; did you mean width?",
        ),
        (
            lambda: fastfcn_pl.create_model(num_classes=2, pretrained=False, **{"nekc.width": 8}),
            "nekc.width: no such key; did you mean neck?",
        ),
        (
            lambda: fastfcn_pl.create_model(num_classes=2, pretrained=False, **{"align_corners.x": 8}),
            "align_corners.x: no such key; there is nothing to set",
        ),
        (
            lambda: fastfcn_pl.create_model(num_classes=2, pretrained=False, **{"neck.width": "wide"}),
            "model.neck.width=wide: use a whole number",
        ),
        (
            lambda: fastfcn_pl.create_model(num_classes=2, pretrained=False, **{"neck.width": object()}),
            "Value 'object' is not a supported primitive type",
        ),
        (
            lambda: fastfcn_pl.create_model(
                num_classes=2, pretrained="nowhere.pth", **{"backbone.name": "test_resnet"}
            ),
            "pretrained=nowhere.pth: no such file; give",
        ),
        (lambda: fastfcn_pl.create_datamodule("camvdi"), "data=camvdi: no such option; did you mean camvid"),
        (lambda: fastfcn_pl.create_datamodule("folder", classes=["a", "b"]), "data.root has no value: set it"),
        (lambda: fastfcn_pl.create_datamodule("camvid", rot="x"), "rot: no such key; did you mean root"),
        (
            lambda: fastfcn_pl.list_options("model/nekc"),
            "model/nekc: no such group of options; did you mean model/neck",
        ),
        (lambda: fastfcn_pl.compose("quikstart"), "quikstart: no such command or study; did you mean quickstart"),
        (lambda: fastfcn_pl.compose("train", ["model/neck=jpuu"]), "model/neck/jpuu"),
        (
            lambda: fastfcn_pl.compose("train", ["data.batchsize=4"]),
            "data.batchsize: no such key; did you mean batch_size",
        ),
        (lambda: fastfcn_pl.load("nowhere.ckpt"), "checkpoint=nowhere.ckpt: no such file"),
    ],
)
def test_a_mistake_is_one_line(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        call()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_network_is_scored_by_a_named_protocol_and_keeps_its_own(tmp_path: Path) -> None:
    data = fastfcn_pl.create_datamodule("camvid", root=write_camvid(tmp_path, val=2), num_workers=0)
    module = fastfcn_pl.load(write_checkpoint(tmp_path / "best.ckpt", data.spec))
    scored = fastfcn_pl.evaluate(module, data, accelerator="cpu")
    paper = fastfcn_pl.evaluate(module, data, protocol="encoding", accelerator="cpu")
    assert (scored["protocol"], paper["protocol"], scored["images"]) == ("native", "encoding", 2)
    assert scored == fastfcn_pl.evaluate(module, data, accelerator="cpu")
    bare = fastfcn_pl.evaluate(module.model, data, accelerator="cpu")
    assert bare["IoU"] == scored["IoU"]


@pytest.mark.slow
def test_a_network_for_other_classes_is_not_scored() -> None:
    data = fastfcn_pl.create_datamodule("shapes", val_images=1, num_workers=0)
    model = fastfcn_pl.create_model(num_classes=data.spec.num_classes + 1, pretrained=False, **TINY)
    with pytest.raises(UserError, match=rf"create it with num_classes={data.spec.num_classes}$"):
        fastfcn_pl.evaluate(model, data)


@pytest.mark.slow
def test_a_program_with_its_own_hydra_application_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("b: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        own = GlobalHydra.instance().hydra
        assert isinstance(fastfcn_pl.create_model(num_classes=2, pretrained=False, **TINY), Segmenter)
        assert GlobalHydra.instance().hydra is own
        assert str(hydra.version.getbase()) == "1.2"
        assert hydra.compose("train") == {"b": 1}


@pytest.mark.slow
def test_a_composed_run_has_a_folder() -> None:
    assert fastfcn_pl.compose("quickstart").run_dir.startswith("runs/quickstart/")
    assert fastfcn_pl.compose("train", ["run_dir=x"]).run_dir == "x"


SCRIPT = """
import fastfcn_pl

data = fastfcn_pl.create_datamodule("camvid", root="data/CamVid", **{"augmentation.crop_size": [64, 64]})
model = fastfcn_pl.create_model("fastfcn_encnet_r50", num_classes=19, pretrained=False, **{"neck.width": 256})
own = fastfcn_pl.create_model(num_classes=19, neck="jpu", **{"neck.width": 256, "neck.dilations": [1, 2]})
reveal_type(model)
reveal_type(fastfcn_pl.list_options("model/neck"))
reveal_type(fastfcn_pl.load("best.ckpt").spec.num_classes)
reveal_type(fastfcn_pl.evaluate(model, data, protocol="encoding"))
reveal_type(fastfcn_pl.Predictor("best.ckpt"))
reveal_type(fastfcn_pl.push_to_hub("best.ckpt", "a/b", license="mit"))
fastfcn_pl.create_modle
"""
TYPES = [
    "fastfcn_pl.models.segmenter.Segmenter",
    "builtins.list[builtins.str]",
    "builtins.int",
    "builtins.dict[builtins.str, Any]",
    "fastfcn_pl.tools.predict.predictor.Predictor",
    "builtins.str",
]


@pytest.mark.exhaustive  # mypy reads torch and Lightning
def test_a_users_script_is_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(SCRIPT)
    words = ["--strict", "--follow-imports=silent", "--config-file=", "--cache-dir", str(ROOT / ".mypy_cache" / "user")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert [
        line.partition("Revealed type is ")[2].strip('"').replace("builtins.", "")
        for line in lines
        if "note: Revealed" in line
    ] == [name.replace("builtins.", "") for name in TYPES]  # as mypy's version writes them
    errors = [line for line in lines if " error: " in line]
    assert len(errors) == 1, done.stdout
    assert 'Module has no attribute "create_modle"' in errors[0]


def test_a_neck_works_in_a_plain_torch_model() -> None:
    from fastfcn_pl.models.necks.jpu import JPU

    levels = [torch.zeros(1, channels, 64 // stride, 64 // stride) for channels, stride in ((8, 8), (16, 16), (32, 32))]
    info = fastfcn_pl.FeatureInfo((8, 16, 32), (8, 16, 32))
    neck = JPU(info, align_corners=False, width=512, dilations=(1, 2, 4, 8))
    assert neck(levels)[-1].shape == (1, 2048, 8, 8)
    assert neck.out_info.channels[-1] == 2048
