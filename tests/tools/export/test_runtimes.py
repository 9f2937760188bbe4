"""Files of every neck and head in OpenVINO and ExecuTorch, and the operators that ONNX files need."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from omegaconf import DictConfig

from fastfcn_pl.acceleration.fold import ImageSegmenter
from fastfcn_pl.config import build, schema
from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.export import formats, openvino_ir, writers
from fastfcn_pl.training.module import SegmentationModule
from tests.conftest import ROOT, TINY
from tests.fakes.network import example_images, fill_statistics
from tests.tools.export.test_formats import DESCRIBED, Net
from tests.tools.export.test_writers import SMALL, differences

OPTIONS = [
    f"model/{group}={path.stem}"
    for group in ("neck", "head")
    for path in sorted((schema.CONF_DIR / "model" / group).glob("*.yaml"))
]
REFUSED = {
    "openvino": {"pan"},
    "executorch": {"pan", "dilated", "dilated16", "fpn_carafe", "fpn_dysample", "fpn_fade", "fpn_sapa"},
}
"""Necks for which `docs/export.md` states why."""


def _module(make_config: Callable[..., DictConfig], option: str) -> SegmentationModule:
    keys = [key for key in TINY if "neck" not in key]
    keys += [] if re.search("dilated|none|bilinear", option) else ["model.neck.width=16"]
    keys += ["model.neck.groups=4"] if "jpu_x" in option else []
    cfg = make_config(*keys, *SMALL, option)
    torch.manual_seed(0)
    module = build.module(cfg, build.datamodule(cfg).spec).eval()
    fill_statistics(module.model)
    return module


@pytest.mark.exhaustive
@pytest.mark.parametrize("form", ["openvino", "executorch"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_part_agrees_or_is_refused(
    option: str, form: str, make_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    pytest.importorskip(form)
    module, path = _module(make_config, option), tmp_path / f"net{formats.SUFFIXES[form]}"
    if option.removeprefix("model/neck=") in REFUSED[form]:
        with pytest.raises((AssertionError, RuntimeError)):
            differences(module, form, path)
        return
    for equal, difference in differences(module, form, path):
        assert equal >= 0.999
        assert difference < 1e-4


@pytest.mark.exhaustive
def test_the_documented_operators_are_those_of_the_files(
    make_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "export.md").read_text()
    common = set(re.findall(r"\w+", re.search(r"All networks need ([^.]*)\.", page)[1])) - {"and"}
    documented = {
        option: set(re.findall(r"\w+", row[2]))
        for row in re.finditer(r"^\| (`model/.*`) \| ([A-Z][\w, ]*) \|$", page, re.MULTILINE)
        for option in re.findall(r"`(.*?)`", row[1])
    }
    found = {}
    for option in OPTIONS:
        module = _module(make_config, option)
        network = ImageSegmenter(module.model, module.mean, module.std, "logits").eval()
        writers.write(network, "onnx", tmp_path / "net.onnx", example_images())
        writers.give_labels(tmp_path / "net.onnx")
        names = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
        assert common <= names
        if names - common:
            found[option] = names - common
    assert documented == found


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    path = tmp_path / "net.xml"
    writers.write(Net().eval(), "openvino", path, example_images())
    writers.describe(path, DESCRIBED)
    return path


def test_weights_that_are_missing_or_of_another_export_are_one_line(pair: Path) -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    logits = formats.load(pair).run(images)
    writers.give_labels(pair)
    writers.describe(pair, {**DESCRIBED, "gives": "labels"})
    assert torch.equal(formats.load(pair).run(images), logits.argmax(1).byte())
    weights = openvino_ir.weights_of(pair)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="belongs to other weights than"):
        formats.load(pair)
    weights.unlink()
    with pytest.raises(UserError, match="needs the weights in"):
        formats.load(pair)


@pytest.mark.slow
def test_executorch_refuses_larger_images_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    path = tmp_path / "net.pte"
    network = ImageSegmenterOfColors().eval()
    images = torch.randint(0, 256, (2, 3, 160, 33), dtype=torch.uint8)
    writers.finish(network, path, images, "labels", {**DESCRIBED, "gives": "labels", "max_size": 160}, 160)
    with pytest.raises(UserError, match="trust=true"):
        formats.load(path)
    run = formats.load(path, trust=True).run
    assert torch.equal(run(images), network(images))
    with pytest.raises(UserError, match="up to 160x160, not 161x33: export it with a larger max_size"):
        run(torch.zeros(1, 3, 161, 33, dtype=torch.uint8))


class ImageSegmenterOfColors(Net):
    """Network of two classes whose `output` is chosen as that of `ImageSegmenter` is."""

    output = "logits"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = super().forward(images)
        return logits.argmax(1).to(torch.uint8) if self.output == "labels" else logits
