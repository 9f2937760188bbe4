"""Static quantisation of an ONNX file to 8 bits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.evaluation.metrics import ConfusionMatrix, Scores
from fastfcn_pl.tools.export.formats import reason_of, runner


def quantize(
    path: Path,
    datamodule: SegmentationDataModule,
    num_classes: int,
    *,
    images: int,
    method: str,
    most_lost: float,
) -> dict[str, Any]:
    """Quantize weights and inputs of the convolutions in an ONNX file to 8 bits, in place.

    The first, the last and the depthwise convolutions are sensitive and cheap, and stay in float32. Input ranges are
    calibrated on `images` training images by onnxruntime's `method`. Weights have one scale per channel.

    Returns the mIoU on val before and after. Raises UserError if the mIoU drops by more than `most_lost` (a fraction),
    or if the data set is missing.
    """
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise UserError("int8=true needs onnxruntime: pip install 'fastfcn-pl[export]'") from error
    before = _mean_iou(runner(path), datamodule, num_classes)
    logging.disable(logging.WARNING)  # onnxruntime logs a line for each adjusted scale
    prepared, quantized = path.with_suffix(".prepared.onnx"), path.with_suffix(".int8.onnx")
    try:
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            quantized,
            _reader(quantization.CalibrationDataReader, datamodule, images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=_sensitive(prepared),
            per_channel=True,
            reduce_range=True,  # otherwise sums of products overflow 16 bits on CPUs without VNNI
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[method],
        )
        quantized.replace(path)
    except OSError:
        raise
    except Exception as error:  # onnxruntime raises errors of many kinds
        raise UserError(f"int8=true does not support this network ({reason_of(error)}): use int8=false") from error
    finally:
        logging.disable(logging.NOTSET)
        for leftover in (prepared, quantized):
            leftover.unlink(missing_ok=True)
    after = _mean_iou(runner(path), datamodule, num_classes)
    if before - after > most_lost:
        raise UserError(
            f"int8=true loses {100 * (before - after):.2f} points of mIoU on val, more than quantization.most_lost: "
            "use another quantization.method, more quantization.images, or int8=false"
        )
    return {"mIoU": after, "mIoU_float": before, "images": images, "method": method}


def _sensitive(path: Path) -> list[str]:
    """Return the names of the first, the last and the depthwise convolutions."""
    import onnx

    convolutions = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    grouped = [node for node in convolutions if any(a.name == "group" and a.i > 1 for a in node.attribute)]
    return [node.name for node in (convolutions[0], *grouped, convolutions[-1])]


def _reader(base: type, datamodule: SegmentationDataModule, count: int) -> Any:
    """Return a reader of `count` training images for onnxruntime's calibration."""
    dataset = datamodule.dataset(datamodule.train_split)
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)

    class Reader(base):
        def __init__(self) -> None:
            self.images: Iterator[dict[str, np.ndarray]] = (
                {"images": dataset[0, int(i)]["image"].numpy()[None]} for i in indices
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.images, None)

    return Reader()


def _mean_iou(run: Callable[[Tensor], Tensor], datamodule: SegmentationDataModule, num_classes: int) -> float:
    dataset, metric = datamodule.dataset("val"), ConfusionMatrix(num_classes)
    for i in range(len(dataset)):
        sample = dataset[0, i]
        result = run(sample["image"][None])
        labels = result if result.ndim == 3 else result.argmax(1)
        metric.update(labels.to(torch.int64), sample["target"][None])
    return Scores.of(metric.compute()[0]).mean_iou
