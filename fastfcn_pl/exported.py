"""Files that hold a whole network, and all that is to be known of it: written by `export`, read without our models."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastfcn_pl.contracts import DatasetSpec, UserError

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "torchscript": ".torchscript"}
"""The formats, and how their files end."""
_KEY = "fastfcn_pl.json"
_OPSET = 18
_EXAMPLE = (2, 3, 97, 129)  # sizes that are no multiple of a stride, and of no level the same as another


@dataclass(frozen=True)
class Exported:
    """A network in a file: `run` takes uint8 images `(B, 3, H, W)`, RGB, of any size.

    It returns what `gives` says: `labels` `(B, H, W)`, uint8 class indices, or `logits` `(B, num_classes, H, W)`.
    """

    spec: DatasetSpec
    gives: str
    metadata: dict[str, Any]
    run: Callable[[Tensor], Tensor]

    def labels(self, images: Tensor) -> Tensor:
        """Return class indices `(B, H, W)`."""
        found = self.run(images)
        return found if self.gives == "labels" else found.argmax(1)


def is_exported(path: str | Path) -> bool:
    """Tell whether a file is named as an exported network."""
    return Path(path).suffix in SUFFIXES.values()


def write(network: nn.Module, form: str, path: Path) -> None:
    """Write `network`, which takes uint8 images `(B, 3, H, W)`, in the format `form`, without metadata."""
    images = torch.randint(0, 256, _EXAMPLE, dtype=torch.uint8)
    if form == "torchscript":
        torch.jit.trace(network, images, check_trace=False).save(path)
        return
    if form == "torch_export":
        dynamic = torch.export.Dim.DYNAMIC
        with torch.no_grad():
            program = torch.export.export(network, (images,), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},))
        torch.export.save(program, path)
        return
    _imported("onnx")
    axes = {"images": {0: "batch", 2: "height", 3: "width"}, "result": {0: "batch"}}
    # The exporter of traces: that of torch.export takes minutes over a deep network whose sizes are not known.
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            network,
            (images,),
            path,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["result"],
            dynamic_axes=axes,
        )


def describe(path: Path, metadata: dict[str, Any]) -> None:
    """Put `metadata` into a file that `write` has made."""
    text = json.dumps(metadata)
    if path.suffix == ".onnx":
        onnx = _imported("onnx")
        model = onnx.load(path)
        onnx.helper.set_model_props(model, {_KEY: text})
        onnx.save(model, path)
    elif path.suffix == ".pt2":
        torch.export.save(torch.export.load(path), path, extra_files={_KEY: text})
    else:
        torch.jit.load(path).save(path, _extra_files={_KEY: text})


def load(path: str | Path, device: torch.device | str = "cpu") -> Exported:
    """Return the network of a file; raises UserError where it is missing, damaged, or not of our making."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint={path}: no such file; export one with python -m fastfcn_pl.export")
    try:
        text, run = {".onnx": _onnx, ".pt2": _program, ".torchscript": _script}[path.suffix](path, torch.device(device))
    except (ImportError, UserError):
        raise
    except Exception as error:  # a damaged file makes its reader fail in any way
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"checkpoint={path} cannot be read ({reason}): export it again") from error
    if not text:
        raise UserError(f"checkpoint={path} says nothing of its classes: export it with python -m fastfcn_pl.export")
    metadata = json.loads(text)
    return Exported(DatasetSpec.from_dict(metadata["spec"]), metadata["gives"], metadata, run)


def runner(path: Path) -> Callable[[Tensor], Tensor]:
    """Return what runs the network of a file, described or not, on the CPU."""
    return {".onnx": _onnx, ".pt2": _program, ".torchscript": _script}[path.suffix](path, torch.device("cpu"))[1]


def _onnx(path: Path, device: torch.device) -> tuple[str, Callable[[Tensor], Tensor]]:
    runtime = _imported("onnxruntime")
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [p for p in [*wanted, "CPUExecutionProvider"] if p in runtime.get_available_providers()]
    session = runtime.InferenceSession(str(path), providers=providers)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.cpu().numpy()})[0])

    return session.get_modelmeta().custom_metadata_map.get(_KEY, ""), run


def _program(path: Path, device: torch.device) -> tuple[str, Callable[[Tensor], Tensor]]:
    extra = {_KEY: ""}
    network = torch.export.load(path, extra_files=extra).module().to(device)
    return extra[_KEY], lambda images: network(images.to(device))


def _script(path: Path, device: torch.device) -> tuple[str, Callable[[Tensor], Tensor]]:
    extra = {_KEY: ""}
    network = torch.jit.load(path, device, _extra_files=extra)
    text: str | bytes = extra[_KEY]  # torch leaves what it was given where the file has none, else bytes
    return text.decode() if isinstance(text, bytes) else text, network


def _imported(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"ONNX files need {name}: pip install 'fastfcn-pl[export]'") from error
