"""Exported files are data or are rejected, so that no code of an untrusted file runs."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from fastfcn_pl import Predictor
from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.tools.export import formats, writers
from tests.fakes.network import example_images

SPEC = DatasetSpec("things", ("one", "two"), ((0, 0, 0), (255, 0, 0)))
DESCRIBED = {"spec": SPEC.to_dict(), "gives": "logits"}


class Net(nn.Module):
    """Network that computes logits of two classes from each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images.float())


class Marker:
    """Object that creates the folder `path` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(form: str = "onnx", metadata: Any = DESCRIBED, gives: str = "logits") -> Path:
        torch.manual_seed(0)
        path = tmp_path / f"net{formats.SUFFIXES[form]}"
        writers.write(Net().eval(), form, path, example_images())
        if gives == "labels":
            writers.give_labels(path)
        writers.describe(path, metadata)
        return path

    return written


@pytest.mark.parametrize("form", ["onnx", "torchscript", pytest.param("torch_export", marks=pytest.mark.slow)])
def test_labels_are_the_classes_of_the_logits(form: str, write: Callable[..., Path]) -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    logits = formats.load(write(form), trust=True).run(images)
    labels = formats.load(write(form, {**DESCRIBED, "gives": "labels"}, "labels"), trust=True).run(images)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), logits.argmax(1))


@pytest.mark.parametrize("suffix", [".pt2", ".torchscript"])
@pytest.mark.parametrize("trust", [(), [], ["my_parts"], False, "true"])
def test_a_file_that_runs_code_is_refused_before_it_is_read(suffix: str, trust: Any, tmp_path: Path) -> None:
    path, marker = tmp_path / f"net{suffix}", tmp_path / "marker"
    torch.save(Marker(marker), path)
    for read in (formats.load, Predictor):
        with pytest.raises(UserError, match=r"can run code when it is read.*trust=true") as caught:
            read(path, trust=trust)
        assert "\n" not in str(caught.value)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the payload does run where a file is unpickled"


@pytest.mark.slow
def test_a_pickled_input_of_a_torch_export_file_runs_only_where_it_is_trusted(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    path, marker, payload, hostile = write("torch_export"), tmp_path / "marker", io.BytesIO(), tmp_path / "far.pt2"
    torch.save((Marker(marker),), payload)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(hostile, "w") as target:
        for entry in source.infolist():
            is_input = "sample_inputs" in entry.filename
            target.writestr(entry.filename, payload.getvalue() if is_input else source.read(entry))
    with pytest.raises(UserError, match="trust=true"):
        formats.load(hostile)
    assert not marker.exists()
    with pytest.raises(UserError, match="cannot be read"):
        formats.load(hostile, trust=True)
    assert marker.exists(), "torch unpickles it: a trusted file can do anything"


def test_a_torchscript_that_writes_files_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Writer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.path = str(marker)

        def forward(self, images: Tensor) -> Tensor:
            torch.save(images, self.path)
            return images.float()

    path = tmp_path / "net.torchscript"
    torch.jit.save(torch.jit.script(Writer()), str(path))
    with pytest.raises(UserError, match="trust=true"):
        Predictor(path)(np.zeros((4, 4, 3), np.uint8))
    assert not marker.exists()


@pytest.mark.parametrize("location", ["../weights", "/etc/passwd", "weights.bin"])
@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_an_onnx_file_names_no_other_files(
    location: str, place: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write()
    model = onnx.load(path)
    if place == "initializer":
        tensor = model.graph.initializer[0]
    else:
        node = model.graph.node.add(op_type="Constant", output=["unused"])
        tensor = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t
        tensor.data_type, tensor.dims[:] = onnx.TensorProto.FLOAT, [1]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="weights from other files"):
        formats.load(path)


def _changed(**spec: Any) -> dict[str, Any]:
    return {**DESCRIBED, "spec": {**SPEC.to_dict(), **spec}}


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "null", '"x"', "{}", "[" * 100_000, '{"gives": "logits", "spec": []}', '{"spec": {}, "gives": 1}'),
        json.dumps({**DESCRIBED, "gives": ["logits"]}),
        json.dumps({**DESCRIBED, "more": "x" * 2**21}),
        json.dumps({**DESCRIBED, "spec": None}),
        *(json.dumps(_changed(name=name)) for name in (1, "a\nb", "\x1b[2J")),
        *(json.dumps(_changed(classes=classes)) for classes in (None, 1, [], [1, 2], [["a"], ["b"]], ["a", "a"])),
        *(json.dumps(_changed(palette=p)) for p in ([[0, 0, 0]], [[0, 0, 256], [0, 0, 0]], [[0.5, 0, 0], [0, 0, 0]])),
        *(json.dumps(_changed(remap=remap)) for remap in ([], {"a": 0}, {"-1": 0}, {"70000": 0}, {"0": 9})),
    ],
    ids=lambda text: text[:40],
)
def test_metadata_that_export_does_not_write_is_one_line(text: str, write: Callable[..., Path]) -> None:
    path = write()
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {formats.METADATA: text})
    onnx.save(model, path)
    with pytest.raises(UserError, match="has invalid metadata") as caught:
        formats.load(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_foreign_network_is_one_line(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(metadata=_changed(classes=["a", "b", "c"], palette=[[0, 0, 0]] * 3))
    with pytest.raises(UserError, match="does not return logits of its 3 classes"):
        Predictor(path)(np.zeros((4, 4, 3), np.uint8))
    model = onnx.load(path)
    model.graph.node[0].op_type, model.graph.node[0].domain = "Stranger", "own.library"
    onnx.save(model, path)
    with pytest.raises(UserError, match="cannot be read"):
        formats.load(path)
    path.write_bytes(b"not a network")
    with pytest.raises(UserError, match="cannot be read"):
        formats.load(path)
