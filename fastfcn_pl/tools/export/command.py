"""A checkpoint's network as a file that runs without this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.data.datamodule import SegmentationDataModule
from fastfcn_pl.data.datasets.shapes import ShapesSource
from fastfcn_pl.data.io.find_images import find_images
from fastfcn_pl.data.io.image_files import read_image
from fastfcn_pl.engine.checkpoint import Checkpoint
from fastfcn_pl.tools.export import formats, writers
from fastfcn_pl.tools.export.check import Agreement, Check
from fastfcn_pl.tools.export.formats import GIVES, SUFFIXES
from fastfcn_pl.tools.export.quantize import quantize


def export(cfg: DictConfig) -> None:
    """Write `cfg.checkpoint`'s network as `cfg.format`, and check the file; one that differs is not left."""
    output = _output(cfg)
    trained = Checkpoint.read(cfg.checkpoint, Trust.of(cfg.trust, cfg), cfg.data if "_target_" in cfg.data else None)
    module, datamodule = trained.build(), None
    if cfg.images is None or cfg.int8:
        datamodule = build.datamodule(trained.parts("data", "seed", changes={"data": cfg.data}))
    pictures = _pictures(cfg, datamodule)
    network = ImageSegmenter(module.model, module.mean, module.std, "logits", cfg.accelerate).eval()
    metadata: dict[str, Any] = {"spec": module.spec.to_dict(), "gives": cfg.gives, "protocol": "native"}
    metadata |= {"mean": module.mean.flatten().tolist(), "std": module.std.flatten().tolist()}
    metadata |= {"checkpoint": Path(cfg.checkpoint).name, **provenance.environment()}
    with atomic_io.atomic_write(output) as staged:
        hidden = staged.with_suffix(output.suffix)
        with _exporting(cfg.format):
            writers.write(network, cfg.format, hidden)
        check = Check(module, pictures)
        agreement = check.logits(formats.runner(hidden))
        _refuse(agreement.least, "least_equal", cfg.least_equal, cfg.format)
        if agreement.difference > cfg.largest_difference:
            raise UserError(
                f"logits of the {cfg.format} file differ from the checkpoint's by {agreement.difference:.2g} of their "
                f"spread, more than largest_difference={cfg.largest_difference}: it is not kept; try another format"
            )
        if cfg.int8:
            assert datamodule is not None
            options = {key: value for key, value in cfg.quantization.items() if key != "least_equal"}
            metadata["int8"] = quantize(hidden, datamodule, module.spec.num_classes, **options)
            agreement = check.logits(formats.runner(hidden))
        found = {"images": len(pictures), "sizes": check.sizes, "equal_labels": _judged(cfg, agreement)}
        found |= {"equal_labels_of_noise": agreement.noise, "largest_difference": agreement.difference}
        with _exporting(cfg.format), torch.no_grad():
            if cfg.gives == "labels":
                writers.give_labels(hidden)
            writers.describe(hidden, {**metadata, "check": found})
        # The finished file, read and run as by those who use it.
        equal = _judged(cfg, check.labels(formats.load(hidden, trust=True).labels))
        if cfg.int8:
            _refuse(equal, "quantization.least_equal", cfg.quantization.least_equal, cfg.format)
        else:
            _refuse(equal, "least_equal", cfg.least_equal, cfg.format)
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB, {cfg.gives} of {module.spec.name}, protocol native")
    print(
        f"against the checkpoint, on {found['images']} images{'' if cfg.int8 else ' and on noise'} in {check.sizes} "
        f"sizes: {100 * equal:.4f} % of labels or more are equal at each, logits of the file differ by "
        f"{agreement.difference:.2g} of their spread at most"
    )
    if cfg.int8:
        was, now = metadata["int8"]["mIoU_float"], metadata["int8"]["mIoU"]
        print(f"int8: mIoU {100 * now:.2f} on {module.spec.name} val, {100 * (was - now):.2f} points below float32's")


@contextmanager
def _exporting(form: str) -> Iterator[None]:
    """Raise UserError where an exporter fails; errors of the disk stay what they are."""
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # an operation that an exporter does not know makes it fail in any way
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"format={form} does not take this network ({reason}): try another format") from error


def _judged(cfg: DictConfig, agreement: Agreement) -> float:
    """Return the share of equal labels that decides. Ranges of 8 bits are those of real images: noise leaves them."""
    return agreement.real if cfg.int8 else agreement.least


def _refuse(equal: float, key: str, least: float, form: str) -> None:
    if equal < least:
        raise UserError(
            f"the {form} file labels {100 * equal:.3f} % of pixels as the checkpoint does, at one size of images, less "
            f"than {key}={least}: it is not kept"
        )


def _output(cfg: DictConfig) -> Path:
    for key, known in (("format", tuple(SUFFIXES)), ("gives", GIVES)):
        if cfg[key] not in known:
            raise UserError(f"{key}={cfg[key]}: no such option; {suggest(cfg[key], known)}")
    if cfg.int8 and cfg.format != "onnx":
        raise UserError(f"int8=true is for format=onnx, not {cfg.format}")
    suffix = SUFFIXES[cfg.format]
    output = Path(cfg.output) if cfg.output else Path(cfg.checkpoint).with_suffix(suffix)
    if output.suffix != suffix:
        raise UserError(f"output={output}: a file of format={cfg.format} ends in {suffix}")
    if output.exists() and not cfg.overwrite:
        raise UserError(f"{output} exists already: set overwrite=true, or another output=")
    return output


def _pictures(cfg: DictConfig, datamodule: SegmentationDataModule | None) -> list[Tensor]:
    """Return images `(3, H, W)` to check with: the user's, else those of the data set's val, else drawn ones."""
    if cfg.images is not None:
        _, paths = find_images(cfg.images)
        arrays = [np.array(read_image(path, upright=True)) for path in paths[: cfg.count]]
    else:
        assert datamodule is not None
        try:
            source = datamodule.dataset("val").source
        except UserError as error:
            print(f"checked with drawn pictures, since {error}")
            source = ShapesSource(cfg.count, 192, 0)
        arrays = [np.array(source.read(i)[0]) for i in range(min(cfg.count, len(source)))]
    return [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
