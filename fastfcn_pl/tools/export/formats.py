"""Files that hold a whole network, and all that is to be known of it: written by `export`, read without our models.

An ONNX file is data. The others are code: of a `.pt2` file torch unpickles the example input, evaluates its sizes as
Python expressions and compiles its guards; a TorchScript file may call operators that write files. So these two are
opened only by those who trust them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastfcn_pl.core.types import DatasetSpec, UserError

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "torchscript": ".torchscript"}
"""The formats, and how their files end."""
GIVES = ("labels", "logits")
METADATA = "fastfcn_pl.json"
"""The name of the metadata inside a file."""
_CODE = (".pt2", ".torchscript")
_MOST_METADATA = 2**20


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


def load(path: str | Path, device: torch.device | str = "cpu", trust: Sequence[str] | bool = ()) -> Exported:
    """Return the network of a file; raises UserError where it is missing, damaged, or not of our making.

    A file of a format that runs code is not opened unless `trust` is true.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint={path}: no such file; export one with python -m fastfcn_pl.export")
    if path.suffix in _CODE and trust is not True:
        raise UserError(
            f"checkpoint={path} runs code when it is read, as any {path.suffix} file may; if you trust it: trust=true; "
            "an .onnx file is read as data"
        )
    try:
        text, run = _READERS[path.suffix](path, torch.device(device))
    except (ImportError, UserError):
        raise
    except Exception as error:  # a damaged file makes its reader fail in any way
        raise UserError(f"checkpoint={path} cannot be read ({reason_of(error)}): export it again") from error
    if not text:
        raise UserError(f"checkpoint={path} says nothing of its classes: export it with python -m fastfcn_pl.export")
    try:
        metadata, spec = _described(text)
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError, UserError) as error:
        raise UserError(
            f"checkpoint={path}: its {METADATA} is not what export writes ({reason_of(error)}): export it again"
        ) from error
    return Exported(spec, metadata["gives"], metadata, _checked(run, path, metadata["gives"], spec.num_classes))


def runner(path: Path) -> Callable[[Tensor], Tensor]:
    """Return what runs the network of a file that we have written just now, described or not, on the CPU."""
    return _READERS[path.suffix](path, torch.device("cpu"))[1]


def reason_of(error: Exception) -> str:
    """Return an error of another library in one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def imported(name: str) -> Any:
    """Return a module that ONNX files need."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"ONNX files need {name}: pip install 'fastfcn-pl[export]'") from error


def _described(text: str) -> tuple[dict[str, Any], DatasetSpec]:
    """Return metadata and its classes; raises one of many errors where something is not as `export` writes it."""
    if len(text) > _MOST_METADATA:
        raise ValueError(f"{len(text)} characters")
    metadata = json.loads(text)
    if not isinstance(metadata, dict) or metadata["gives"] not in GIVES:
        raise ValueError(f"no dictionary that says what the file gives: {' or '.join(GIVES)}")
    spec = DatasetSpec.from_dict(metadata["spec"])
    names, colors = [spec.name, *spec.classes], [value for color in spec.palette for value in color]
    if not all(isinstance(name, str) and name.isprintable() for name in names):
        raise ValueError("names are printable text")
    if not all(type(value) is int and 0 <= value <= 255 for value in colors):
        raise ValueError("colours are whole numbers from 0 to 255")
    if not all(0 <= i < 2**16 for i in spec.remap):
        raise ValueError("ids are whole numbers of 16 bits")
    return metadata, spec


def _checked(run: Callable[[Tensor], Tensor], path: Path, gives: str, num_classes: int) -> Callable[[Tensor], Tensor]:
    """Return `run`, which raises UserError where the network fails, or does not give what the file says."""

    def checked(images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        try:
            result = run(images)
        except Exception as error:  # runtimes raise errors of many kinds
            raise UserError(
                f"checkpoint={path} does not run on {batch} images of {height}x{width} ({reason_of(error)})"
            ) from error
        shape = (batch, height, width) if gives == "labels" else (batch, num_classes, height, width)
        kind = result.dtype == torch.uint8 if gives == "labels" else result.is_floating_point()
        if result.shape != shape or not kind or (gives == "labels" and int(result.max()) >= num_classes):
            raise UserError(f"checkpoint={path} gives no {gives} of its {num_classes} classes: export it again")
        return result

    return checked


def _onnx(path: Path, device: torch.device) -> tuple[str, Callable[[Tensor], Tensor]]:
    onnx, runtime = imported("onnx"), imported("onnxruntime")
    content = path.read_bytes()
    if any(t.data_location == t.EXTERNAL or t.external_data for t in _tensors(onnx.load_model_from_string(content))):
        raise UserError(f"checkpoint={path} takes weights from other files, which export never does: export it again")
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [p for p in [*wanted, "CPUExecutionProvider"] if p in runtime.get_available_providers()]
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised, too: printed, they would be lines beside ours
    session = runtime.InferenceSession(content, options, providers=providers)
    if [(i.name, i.type) for i in session.get_inputs()] != [("images", "tensor(uint8)")]:
        raise UserError(f"checkpoint={path} is a network, but not of our making: export it with fastfcn_pl.export")

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.cpu().numpy()})[0])

    return session.get_modelmeta().custom_metadata_map.get(METADATA, ""), run


def _tensors(message: Any) -> Iterator[Any]:
    """Yield the tensors of an ONNX model wherever they stand: in nodes, functions, and graphs inside of graphs."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            if part.DESCRIPTOR.name == "TensorProto":
                yield part
            yield from _tensors(part)


def _program(path: Path, device: torch.device) -> tuple[str, Callable[[Tensor], Tensor]]:
    extra = {METADATA: ""}
    network = torch.export.load(path, extra_files=extra).module().to(device)
    return extra[METADATA], lambda images: network(images.to(device))


def _script(path: Path, device: torch.device) -> tuple[str, Callable[[Tensor], Tensor]]:
    extra = {METADATA: ""}
    network = torch.jit.load(path, device, _extra_files=extra)
    text: str | bytes = extra[METADATA]  # torch leaves what it was given where the file has none, else bytes
    return text.decode() if isinstance(text, bytes) else text, network


_READERS = {".onnx": _onnx, ".pt2": _program, ".torchscript": _script}
