"""Exported networks: reading of the formats that `export` writes, without the classes of the model.

ONNX files and OpenVINO's are data. The other formats can run code. torch unpickles the example input of a `.pt2` file,
evaluates its sizes as Python expressions and compiles its guards. A TorchScript file may call operators that write
files. ExecuTorch executes the instructions of a `.pte` file without verifying where they write. These three are read
only if the user trusts them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.tools.export import executorch_program, openvino_ir
from fastfcn_pl.tools.libraries import import_library

SUFFIXES = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "executorch": ".pte",
    "torch_export": ".pt2",
    "torchscript": ".torchscript",
}
"""File suffix of each format."""
GIVES = ("labels", "logits")
METADATA = "fastfcn_pl.json"
"""Name of the metadata inside a file."""
_CODE_SUFFIXES = (".pte", ".pt2", ".torchscript")
_MAX_METADATA = 2**20


@dataclass(frozen=True)
class Exported:
    """Exported network. `run` takes images `(B, C, H, W)`: RGB of uint8, or with bands float32.

    Their size is any, or up to `max_size` of the metadata. It returns uint8 class indices `(B, H, W)` if `gives` is
    `labels`, and `(B, num_classes, H, W)` if it is `logits`.
    """

    spec: DatasetSpec
    gives: str
    metadata: dict[str, Any]
    run: Callable[[Tensor], Tensor]

    def labels(self, images: Tensor) -> Tensor:
        """Return class indices `(B, H, W)`."""
        result = self.run(images)
        return result if self.gives == "labels" else result.argmax(1)


def is_exported(path: str | Path) -> bool:
    """Tell whether a file has the suffix of an exported network."""
    return Path(path).suffix in SUFFIXES.values()


def load(path: str | Path, device: torch.device | str = "cpu", trust: Sequence[str] | bool = ()) -> Exported:
    """Return the exported network in a file; raises UserError if it is missing, damaged or not written by `export`.

    A format that can run code also raises UserError, unless `trust` is true.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint={path}: no such file; export one with python -m fastfcn_pl.export")
    if path.suffix in _CODE_SUFFIXES and trust is not True:
        raise UserError(
            f"checkpoint={path}: a {path.suffix} file can run code when it is read; set trust=true if you trust it, or "
            "export to .onnx or .xml, which are data"
        )
    try:
        text, run = _READERS[path.suffix](path, torch.device(device))
    except (ImportError, UserError):
        raise
    except Exception as error:  # readers raise errors of any kind for a damaged file
        raise UserError(f"checkpoint={path} cannot be read ({reason_of(error)}): export it again") from error
    if not text:
        raise UserError(f"checkpoint={path} has no metadata: export it with python -m fastfcn_pl.export")
    try:
        metadata, spec = _parse_metadata(text)
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError, UserError) as error:
        raise UserError(
            f"checkpoint={path} has invalid metadata in {METADATA} ({reason_of(error)}): export it again"
        ) from error
    checked = _check_results(run, path, metadata["gives"], spec.num_classes, metadata.get("max_size"))
    return Exported(spec, metadata["gives"], metadata, checked)


def runner(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a function that runs a file of this process on the CPU, without checks and with or without metadata."""
    return _READERS[path.suffix](path, torch.device("cpu"))[1]


def reason_of(error: Exception) -> str:
    """Return the message of another library's error in one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


@contextmanager
def quiet_torchscript() -> Iterator[None]:
    """Silence torch about TorchScript: it is deprecated, as `export` says, and a trace may miss branches."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*`torch\.jit\.\w+` is deprecated")
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # the file is compared with the checkpoint
        yield


def _parse_metadata(text: str) -> tuple[dict[str, Any], DatasetSpec]:
    """Return the metadata and its classes; invalid metadata raises errors of several types."""
    if len(text) > _MAX_METADATA:
        raise ValueError(f"{len(text)} characters are too many")
    metadata = json.loads(text)
    if not isinstance(metadata, dict) or metadata["gives"] not in GIVES:
        raise ValueError(f"gives has to be {' or '.join(GIVES)}")
    if type(metadata.get("max_size", 1)) is not int:
        raise ValueError("max_size has to be a whole number")
    spec = DatasetSpec.from_dict(metadata["spec"])
    names, colors = [spec.name, *spec.classes], [value for color in spec.palette for value in color]
    if not all(isinstance(name, str) and name.isprintable() for name in names):
        raise ValueError("names have to be printable text")
    if not all(type(value) is int and 0 <= value <= 255 for value in colors):
        raise ValueError("colours have to be whole numbers from 0 to 255")
    if not all(0 <= i < 2**16 for i in spec.remap):
        raise ValueError("ids have to be whole numbers of 16 bits")
    return metadata, spec


def _check_results(
    run: Callable[[Tensor], Tensor], path: Path, gives: str, num_classes: int, max_size: int | None
) -> Callable[[Tensor], Tensor]:
    """Wrap `run` so that it raises UserError if the network fails or returns something else than the metadata says."""

    def run_checked(images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        if max_size is not None and max(height, width) > max_size:
            raise UserError(
                f"checkpoint={path} takes images of up to {max_size}x{max_size}, not {height}x{width}: export it with "
                "a larger max_size, or make the images smaller"
            )
        try:
            result = run(images)
        except Exception as error:  # runtimes raise errors of many kinds
            raise UserError(
                f"checkpoint={path} does not run on {batch} images of {height}x{width} ({reason_of(error)})"
            ) from error
        shape = (batch, height, width) if gives == "labels" else (batch, num_classes, height, width)
        dtype_matches = result.dtype == torch.uint8 if gives == "labels" else result.is_floating_point()
        if result.shape != shape or not dtype_matches or (gives == "labels" and int(result.max()) >= num_classes):
            raise UserError(f"checkpoint={path} does not return {gives} of its {num_classes} classes: export it again")
        return result

    return run_checked


def _read_onnx(path: Path, device: torch.device) -> tuple[str, Callable[[Tensor], Tensor]]:
    onnx, runtime = import_library("onnx", "export"), import_library("onnxruntime", "export")
    content = path.read_bytes()
    if any(t.data_location == t.EXTERNAL or t.external_data for t in _tensors(onnx.load_model_from_string(content))):
        raise UserError(f"checkpoint={path} reads weights from other files, unlike exported files: export it again")
    gpu_providers = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [p for p in [*gpu_providers, "CPUExecutionProvider"] if p in runtime.get_available_providers()]
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well as printed
    session = runtime.InferenceSession(content, options, providers=providers)
    inputs = [(i.name, i.type) for i in session.get_inputs()]
    if inputs not in ([("images", "tensor(uint8)")], [("images", "tensor(float)")]):
        raise UserError(f"checkpoint={path} was not written by fastfcn_pl.export: export it with that command")

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.cpu().numpy()})[0])

    return session.get_modelmeta().custom_metadata_map.get(METADATA, ""), run


def _tensors(message: Any) -> Iterator[Any]:
    """Yield all tensors of an ONNX model, also those in functions and nested graphs."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in [value] if hasattr(value, "ListFields") else value:
            if child.DESCRIPTOR.name == "TensorProto":
                yield child
            yield from _tensors(child)


def _read_torch_export(path: Path, device: torch.device) -> tuple[str, Callable[[Tensor], Tensor]]:
    extra = {METADATA: ""}
    network = torch.export.load(path, extra_files=extra).module().to(device)
    return extra[METADATA], lambda images: network(images.to(device))


def _read_torchscript(path: Path, device: torch.device) -> tuple[str, Callable[[Tensor], Tensor]]:
    extra = {METADATA: ""}
    with quiet_torchscript():
        network = torch.jit.load(path, device, _extra_files=extra)
    text: str | bytes = extra[METADATA]  # bytes if the file has metadata, else unchanged
    return text.decode() if isinstance(text, bytes) else text, network


_READERS = {
    ".onnx": _read_onnx,
    ".xml": openvino_ir.read,
    ".pte": executorch_program.read,
    ".pt2": _read_torch_export,
    ".torchscript": _read_torchscript,
}
