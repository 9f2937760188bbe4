"""OpenVINO's intermediate representation: a graph in an `.xml` file, and its weights in a `.bin` file beside it."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.libraries import import_library

_METADATA, _DIGEST = "fastfcn_pl", "fastfcn_pl_weights"
"""Entries of the graph's runtime information: our metadata, and the SHA-256 of the weights."""
_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
"""CPUs with AMX would compute in bfloat16 otherwise."""


def weights_of(path: Path) -> Path:
    """Return the path of the weights that belong to a graph."""
    return path.with_suffix(".bin")


def convert(onnx_file: bytes, path: Path) -> None:
    """Write the network of an ONNX file to `path`, with weights in float32."""
    _save(_openvino().Core().read_model(onnx_file), path)


def give_labels(path: Path) -> None:
    """Change a file of `convert` so that it returns uint8 labels `(B, H, W)` instead of logits."""
    ov = _openvino()
    opset, model = ov.opset13, _model(path)
    logits = model.get_results()[0].input_value(0)
    index = opset.topk(logits, 1, axis=1, mode="max", sort="none", index_element_type="i32").output(1)
    labels = opset.convert(opset.squeeze(index, 1), "u8")
    labels.output(0).set_names({"result"})
    _save(ov.Model([labels], model.get_parameters()), path)


def describe(path: Path, text: str) -> None:
    """Add metadata to a file of `convert`."""
    model = _model(path)
    model.set_rt_info(text, _METADATA)
    model.set_rt_info(_digest(weights_of(path)), _DIGEST)
    _save(model, path)


def read(path: Path, device: torch.device) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Return the metadata of a file, empty without any, and a function that runs it on CPUs."""
    weights = weights_of(path)
    if not weights.is_file():
        raise UserError(f"checkpoint={path} needs the weights in {weights}: copy both files, or export again")
    digest = re.search(rb'<%s value="(\w+)"' % _DIGEST.encode(), path.read_bytes())
    if digest is not None and digest[1].decode() != _digest(weights):  # such weights may not even be read
        raise UserError(f"checkpoint={path} belongs to other weights than {weights}: export it again")
    model = _model(path)
    return str(model.get_rt_info(_METADATA).value) if model.has_rt_info(_METADATA) else "", runner(model)


def runner(model: Any) -> Callable[[Tensor], Tensor]:
    """Return a function that runs a model of OpenVINO, or the content of an ONNX file, on CPUs."""
    core = _openvino().Core()
    compiled = core.compile_model(core.read_model(model) if isinstance(model, bytes) else model, "CPU", _FLOAT32)
    return lambda images: torch.from_numpy(compiled(images.cpu().numpy())[0])


def _digest(weights: Path) -> str:
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def _model(path: Path) -> Any:
    """Return the graph with its weights in memory, so that the files may be replaced."""
    return _openvino().Core().read_model(path.read_bytes(), weights_of(path).read_bytes())


def _save(model: Any, path: Path) -> None:
    try:
        _openvino().save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        if "iostream" in str(error):  # it does not say why
            raise OSError(errno.EIO, "OpenVINO cannot write its files") from error
        raise


def _openvino() -> Any:
    return import_library("openvino", "openvino")
