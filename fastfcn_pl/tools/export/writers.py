"""Writers of the export formats. Files are built in memory, so that a full disk raises an ordinary OSError."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastfcn_pl.acceleration.fold import ImageSegmenter, IntervalPool
from fastfcn_pl.acceleration.known_modules import is_untouched
from fastfcn_pl.tools.export import executorch_program, openvino_ir
from fastfcn_pl.tools.export.formats import METADATA, quiet_torchscript
from fastfcn_pl.tools.libraries import import_library

OPSET = 18
"""Version of the operators in ONNX files."""
EXAMPLE_SIZE = (2, 97, 129)  # batch, height and width: no multiple of a stride, and with another size at each level
_LOGITS = "result.logits"


def write(network: nn.Module, file_format: str, path: Path, images: Tensor, max_size: int | None = None) -> None:
    """Write `network`, which takes such `images` `(B, C, H, W)`, in `file_format`, without metadata.

    Batch, height and width may be any; `max_size` limits the sides, for ExecuTorch only. Adaptive pools are replaced by
    matrix products, which all exporters support for any size.
    """
    for module in network.modules():
        if type(module) is nn.AdaptiveAvgPool2d and is_untouched(module):
            module.__class__ = IntervalPool  # type: ignore[assignment]
    if file_format == "executorch":
        assert max_size is not None
        executorch_program.write(network, path, images, max_size)
        return
    buffer = io.BytesIO()
    if file_format == "torchscript":
        with quiet_torchscript():
            torch.jit.save(torch.jit.trace(network, images, check_trace=False), buffer)
    elif file_format == "torch_export":
        torch.export.save(_export_program(network, images), buffer)
    else:
        import_library("onnx", "export")
        axes = {"images": {0: "batch", 2: "height", 3: "width"}, "result": {0: "batch"}}
        # With dynamic sizes, the exporter based on torch.export (dynamo=True) is very slow for deep networks.
        torch.onnx.register_custom_op_symbolic("aten::_upsample_bicubic2d_aa", _resize_bicubic, OPSET)
        with warnings.catch_warnings(action="ignore"):
            torch.onnx.export(
                network,
                (images,),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["result"],
                dynamic_axes=axes,
            )
        if file_format == "openvino":
            openvino_ir.convert(buffer.getvalue(), path)
            return
    path.write_bytes(buffer.getbuffer())


def finish(
    network: ImageSegmenter, path: Path, images: Tensor, gives: str, metadata: dict[str, Any], max_size: int
) -> None:
    """Change a file that `write` made of `network` and `images` so that it returns `gives` and has `metadata`."""
    if path.suffix == ".pte":  # it cannot be changed
        network.output = gives
        executorch_program.write(network, path, images, max_size, json.dumps(metadata))
        return
    if gives == "labels":
        give_labels(path)
    describe(path, metadata)


def _resize_bicubic(graph: Any, x: Any, size: Any, align_corners: Any, scales: Any) -> Any:
    """Write bicubic resizing with antialiasing, which timm uses for position embeddings and the exporter lacks."""
    axis, none = graph.op("Constant", value_t=torch.tensor([0])), graph.op("Constant", value_t=torch.tensor([]))
    lengths = [
        graph.op("Reshape", length, graph.op("Constant", value_t=torch.tensor([1]))) for length in size.node().inputs()
    ]
    start = graph.op("Slice", graph.op("Shape", x), axis, graph.op("Constant", value_t=torch.tensor([2])), axis)
    return graph.op(
        "Resize",
        x,
        none,
        none,
        graph.op("Concat", start, *lengths, axis_i=0),
        mode_s="cubic",
        antialias_i=1,
        cubic_coeff_a_f=-0.5,  # Pillow's, as in torch
        coordinate_transformation_mode_s="half_pixel",
        exclude_outside_i=1,  # weights at the border are normalised, as in torch
    )


def give_labels(path: Path) -> None:
    """Change a file from `write` so that it returns uint8 labels `(B, H, W)` instead of logits."""
    buffer = io.BytesIO()
    if path.suffix in (".onnx", ".xml"):
        (_append_argmax if path.suffix == ".onnx" else openvino_ir.give_labels)(path)
        return
    if path.suffix == ".pt2":
        program = torch.export.load(path)
        images, *_ = program.example_inputs[0]
        torch.export.save(_export_program(_Labels(program.module()), images), buffer)
    else:
        with quiet_torchscript():
            torch.jit.save(torch.jit.script(_Labels(torch.jit.load(path))), buffer)
    path.write_bytes(buffer.getbuffer())


def describe(path: Path, metadata: dict[str, Any]) -> None:
    """Add `metadata` to a file from `write`."""
    text, buffer = json.dumps(metadata), io.BytesIO()
    if path.suffix == ".onnx":
        onnx = import_library("onnx", "export")
        model = onnx.load(path)
        onnx.helper.set_model_props(model, {METADATA: text})
        onnx.save(model, path)
        return
    if path.suffix == ".xml":
        openvino_ir.describe(path, text)
        return
    if path.suffix == ".pt2":
        torch.export.save(torch.export.load(path), buffer, extra_files={METADATA: text})
    else:
        with quiet_torchscript():
            torch.jit.save(torch.jit.load(path), buffer, _extra_files={METADATA: text})
    path.write_bytes(buffer.getbuffer())


class _Labels(nn.Module):
    """Network that returns the class of the largest logit."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).argmax(1).to(torch.uint8)


def _export_program(network: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    with torch.no_grad():
        return torch.export.export(network, (images,), dynamic_shapes=shapes)


def _append_argmax(path: Path) -> None:
    onnx = import_library("onnx", "export")
    model = onnx.load(path)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [_LOGITS if name == "result" else name for name in names]
    model.graph.node.extend(
        [
            onnx.helper.make_node("ArgMax", [_LOGITS], ["result.index"], name="labels/ArgMax", axis=1, keepdims=0),
            onnx.helper.make_node("Cast", ["result.index"], ["result"], name="labels/Cast", to=onnx.TensorProto.UINT8),
        ]
    )
    result = onnx.helper.make_tensor_value_info("result", onnx.TensorProto.UINT8, ["batch", None, None])
    model.graph.output[0].CopyFrom(result)
    onnx.save(model, path)
