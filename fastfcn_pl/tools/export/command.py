"""Export of a checkpoint's network to a file that runs without this package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from fastfcn_pl.acceleration.fold import ImageSegmenter
from fastfcn_pl.config import build
from fastfcn_pl.config.trust import Trust
from fastfcn_pl.core import atomic_io, provenance
from fastfcn_pl.core.types import DatasetSpec, UserError, suggest
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.data.datasets.shapes import ShapesSource
from fastfcn_pl.data.io.band_files import band_pixels
from fastfcn_pl.data.io.find_images import find_images
from fastfcn_pl.data.io.image_files import read_image
from fastfcn_pl.engine.checkpoint import Checkpoint
from fastfcn_pl.tools.export import formats, openvino_ir, writers
from fastfcn_pl.tools.export.check import Agreement, Check, synthetic_images
from fastfcn_pl.tools.export.formats import GIVES, SUFFIXES
from fastfcn_pl.tools.export.quantize import quantize

_MIN_MAX_SIZE = 160
"""Smallest limit of ExecuTorch's images with which a file is still compared at several sizes."""


def export(cfg: DictConfig) -> None:
    """Write the network of `cfg.checkpoint` in `cfg.format`, and check it against the checkpoint's own results."""
    output = _output_path(cfg)
    if cfg.format == "torchscript":
        print("note: torch has deprecated TorchScript: prefer format=torch_export or onnx", file=sys.stderr)
    trained = Checkpoint.read(cfg.checkpoint, Trust.of(cfg.trust, cfg), cfg.data if "_target_" in cfg.data else None)
    module, datamodule = trained.build(), None
    if cfg.images is None or cfg.int8:
        datamodule = build.datamodule(trained.parts("data", "seed", changes={"data": cfg.data}))
    real_images = _real_images(cfg, datamodule, module.spec)
    network = ImageSegmenter(module.model, module.mean, module.std, "logits", cfg.accelerate).eval()
    metadata: dict[str, Any] = {"spec": module.spec.to_dict(), "gives": cfg.gives, "protocol": "native"}
    metadata |= {"mean": module.mean.flatten().tolist(), "std": module.std.flatten().tolist()}
    metadata |= {"checkpoint": Path(cfg.checkpoint).name, **provenance.environment()}
    metadata |= {"opset": writers.OPSET} if cfg.format == "onnx" else {}
    metadata |= {"max_size": cfg.max_size} if cfg.format == "executorch" else {}
    example = synthetic_images(module.spec, [writers.EXAMPLE_SIZE])[0]
    with _staged(output) as hidden:
        with _exporting(cfg.format):
            writers.write(network, cfg.format, hidden, example, cfg.max_size)
        check = Check(module, real_images, metadata.get("max_size"))
        agreement = check.logits(formats.runner(hidden))
        _require_equal(agreement.least, "least_equal", cfg.least_equal, cfg.format)
        if agreement.difference > cfg.largest_difference:
            raise UserError(
                f"logits of the {cfg.format} file differ from the checkpoint's by {agreement.difference:.2g} standard "
                f"deviations, more than largest_difference={cfg.largest_difference}; the file was removed: try another "
                "format"
            )
        if cfg.int8:
            assert datamodule is not None
            options = {key: value for key, value in cfg.quantization.items() if key != "least_equal"}
            metadata["int8"] = quantize(hidden, datamodule, module.spec.num_classes, **options)
            agreement = check.logits(formats.runner(hidden))
        summary = {"images": len(real_images), "sizes": check.sizes, "equal_labels": _equal_labels(cfg, agreement)}
        summary |= {"equal_labels_of_noise": agreement.noise, "largest_difference": agreement.difference}
        with _exporting(cfg.format), torch.no_grad():
            writers.finish(network, hidden, example, cfg.gives, {**metadata, "check": summary}, cfg.max_size)
        # Check the finished file once more, read as its users read it.
        equal = _equal_labels(cfg, check.labels(formats.load(hidden, trust=True).labels))
        if cfg.int8:
            _require_equal(equal, "quantization.least_equal", cfg.quantization.least_equal, cfg.format)
        else:
            _require_equal(equal, "least_equal", cfg.least_equal, cfg.format)
        in_openvino = _compare_in_openvino(cfg, hidden, check) if cfg.format == "onnx" else ""
    size = sum(path.stat().st_size for path in _files(output)) / 2**20
    limits = "".join(f", {key} {metadata[key]}" for key in ("opset", "max_size") if key in metadata)
    print(f"{output}: {size:.1f} MiB, {cfg.gives} of {module.spec.name}, protocol native{limits}")
    print(
        f"compared with the checkpoint on {summary['images']} images{'' if cfg.int8 else ' and on noise'} in "
        f"{check.sizes} sizes: at least {100 * equal:.4f} % of labels are equal in each, and logits differ by at most "
        f"{agreement.difference:.2g} standard deviations{in_openvino}"
    )
    if cfg.int8:
        float_score, score = metadata["int8"]["mIoU_float"], metadata["int8"]["mIoU"]
        loss = 100 * (float_score - score)
        print(f"int8: mIoU {100 * score:.2f} on {module.spec.name} val, {loss:.2f} points below float32")


@contextmanager
def _staged(output: Path) -> Iterator[Path]:
    """Yield a hidden path for `output`, which replaces it at the end, after any weights beside it."""
    with atomic_io.atomic_write(output) as staged:
        hidden = staged.with_suffix(output.suffix)
        *beside, _ = _files(hidden)
        try:
            yield hidden
            for source, target in zip(beside, _files(output), strict=False):
                with atomic_io.atomic_write(target) as staged_weights:
                    source.replace(staged_weights)
        finally:
            for source in beside:
                source.unlink(missing_ok=True)


def _files(output: Path) -> list[Path]:
    """Return the files of an export, the named one last."""
    return [*([openvino_ir.weights_of(output)] if output.suffix == SUFFIXES["openvino"] else []), output]


def _compare_in_openvino(cfg: DictConfig, path: Path, check: Check) -> str:
    """Return how an ONNX file agrees in OpenVINO, if that is installed; prints a note if it does not."""
    if find_spec("openvino") is None:
        return ""
    runtime = f"OpenVINO {version('openvino')}"
    try:
        run = openvino_ir.runner(path.read_bytes())
        labels = run if cfg.gives == "labels" else lambda images: run(images).argmax(1)
        equal = _equal_labels(cfg, check.labels(labels))
    except Exception as error:  # OpenVINO raises errors of many kinds
        print(f"note: {runtime} does not run this file: {formats.reason_of(error)}", file=sys.stderr)
        return ""
    if equal < (cfg.quantization.least_equal if cfg.int8 else cfg.least_equal):
        print(f"note: {runtime} labels only {100 * equal:.3f} % of an image's pixels equally", file=sys.stderr)
        return ""
    return f"; in {runtime}, at least {100 * equal:.4f} % of labels are equal"


@contextmanager
def _exporting(file_format: str) -> Iterator[None]:
    """Raise UserError if an exporter fails. Errors of the disk pass through."""
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # exporters raise errors of any kind for an unsupported operation
        reason = formats.reason_of(error)
        raise UserError(f"format={file_format} does not support this network ({reason}): try another format") from error


def _equal_labels(cfg: DictConfig, agreement: Agreement) -> float:
    """Return the share of equal labels to require. 8 bits are calibrated on real images, so noise does not count."""
    return agreement.real if cfg.int8 else agreement.least


def _require_equal(equal: float, key: str, least: float, file_format: str) -> None:
    if equal < least:
        raise UserError(
            f"only {100 * equal:.3f} % of the labels of the {file_format} file are the checkpoint's at one image size, "
            f"less than {key}={least}; the file was removed: try another format"
        )


def _output_path(cfg: DictConfig) -> Path:
    for key, options in (("format", tuple(SUFFIXES)), ("gives", GIVES)):
        if cfg[key] not in options:
            raise UserError(f"{key}={cfg[key]}: no such option; {suggest(cfg[key], options)}")
    if cfg.int8 and cfg.format != "onnx":
        raise UserError(f"int8=true is for format=onnx, not {cfg.format}")
    suffix = SUFFIXES[cfg.format]
    output = Path(cfg.output) if cfg.output else Path(cfg.checkpoint).with_suffix(suffix)
    if output.suffix != suffix:
        raise UserError(f"output={output}: a file of format={cfg.format} ends in {suffix}")
    for path in _files(output):
        if path.exists() and not cfg.overwrite:
            raise UserError(f"{path} exists already: set overwrite=true, or another output=")
    if cfg.format == "executorch" and cfg.max_size < _MIN_MAX_SIZE:
        raise UserError(f"max_size={cfg.max_size}: use {_MIN_MAX_SIZE} or more")
    return output


def _real_images(cfg: DictConfig, datamodule: SegmentationDataModule | None, spec: DatasetSpec) -> list[Tensor]:
    """Return images `(C, H, W)` for the check: the user's, else those of val, else synthetic ones."""
    if cfg.images is not None:
        _, paths = find_images(cfg.images)
        bands, paths = spec.bands, paths[: cfg.count]
        arrays = [np.array(read_image(p, upright=True)) if bands is None else band_pixels(p, bands) for p in paths]
    else:
        assert datamodule is not None
        try:
            source = datamodule.dataset("val").source
        except UserError as error:
            print(f"checking with synthetic images, since {error}")
            if spec.bands is not None:
                return [*synthetic_images(spec, [(cfg.count, 192, 192)])[0]]
            source = ShapesSource(cfg.count, 192, 0)
        arrays = [np.array(source.read(i)[0]) for i in range(min(cfg.count, len(source)))]
    return [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
