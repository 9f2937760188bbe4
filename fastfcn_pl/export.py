"""Write a network to a file that runs without us: `python -m fastfcn_pl.export checkpoint=<path> format=onnx`.

`predict` takes the file wherever it takes a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fastfcn_pl import launch
from fastfcn_pl.contracts import UserError, suggest

if TYPE_CHECKING:
    from torch import Tensor

    from fastfcn_pl.data.datamodule import SegmentationDataModule
    from fastfcn_pl.module import SegmentationModule

_GIVES = ("labels", "logits")


def export(cfg: DictConfig) -> None:
    """Write `cfg.checkpoint`'s network as `cfg.format`, and check the file; one that differs is not left."""
    import torch

    from fastfcn_pl import build, exported, provenance, staging
    from fastfcn_pl.checkpoint import Checkpoint
    from fastfcn_pl.models.deploy import Deployed
    from fastfcn_pl.trust import Trust

    output = _output(cfg)
    trained = Checkpoint.read(cfg.checkpoint, Trust.of(cfg.trust, cfg), cfg.data if "_target_" in cfg.data else None)
    module, datamodule = trained.build(), None
    if cfg.images is None or cfg.int8:
        datamodule = build.datamodule(trained.parts("data", "seed", changes={"data": cfg.data}))
    pictures = _pictures(cfg, datamodule)
    network = Deployed(module.model, module.mean, module.std, cfg.gives).eval()
    metadata: dict[str, Any] = {"spec": module.spec.to_dict(), "gives": cfg.gives, "protocol": "native"}
    metadata |= {"mean": module.mean.flatten().tolist(), "std": module.std.flatten().tolist()}
    metadata |= {"checkpoint": Path(cfg.checkpoint).name, **provenance.environment()}
    with staging.staged(output) as staged:
        hidden = staged.with_suffix(output.suffix)
        try:
            exported.write(network, cfg.format, hidden)
        except UserError:
            raise
        except Exception as error:  # an operation that an exporter does not know makes it fail in any way
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"format={cfg.format} does not take this network ({reason}): try another format") from error
        if cfg.int8:
            from fastfcn_pl.quantize import quantize

            assert datamodule is not None
            metadata["int8"] = quantize(hidden, datamodule, module.spec.num_classes, **cfg.quantization)
        found = compare(module, exported.runner(hidden), cfg.gives, pictures)
        if found["equal_labels"] < (0 if cfg.int8 else cfg.least_equal):
            raise UserError(
                f"the {cfg.format} file labels {100 * found['equal_labels']:.3f} % of pixels as the checkpoint does, "
                f"less than least_equal={cfg.least_equal}: it is not kept"
            )
        with torch.no_grad():
            exported.describe(hidden, {**metadata, "check": found})
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB, {cfg.gives} of {module.spec.name}, protocol native")
    print(
        f"against the checkpoint, on {found['images']} images of {found['sizes']} sizes: "
        f"{100 * found['equal_labels']:.4f} % of labels are equal, logits differ by {found['largest_difference']:.2g} "
        "of their spread at most"
    )
    if cfg.int8:
        was, now = metadata["int8"]["mIoU_float"], metadata["int8"]["mIoU"]
        print(f"int8: mIoU {100 * now:.2f} on {module.spec.name} val, {100 * (was - now):.2f} points below float32's")


def _output(cfg: DictConfig) -> Path:
    from fastfcn_pl.exported import SUFFIXES

    for key, known in (("format", tuple(SUFFIXES)), ("gives", _GIVES)):
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
    import numpy as np
    import torch

    from fastfcn_pl.data.datasets.shapes import ShapesSource
    from fastfcn_pl.data.files import read_image
    from fastfcn_pl.data.image_files import found_images

    if cfg.images is not None:
        _, paths = found_images(cfg.images)
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


def compare(module: SegmentationModule, run: Any, gives: str, pictures: Sequence[Tensor]) -> dict[str, Any]:
    """Compare a file with the checkpoint: on whole images, on crops of odd sizes, on a batch of three.

    Returns the share of pixels that they label alike, and the largest difference between the logits of the checkpoint's
    network and of the one that is in the file, in standard deviations of the first.
    """
    import torch

    from fastfcn_pl.inference import logits
    from fastfcn_pl.models.deploy import deployed

    batches = [picture[None] for picture in pictures]
    for height, width in ((65, 97), (131, 77), (64, 128)):
        batches += [picture[None, :, :height, :width] for picture in pictures[:2]]
    three = [pictures[i % len(pictures)] for i in range(3)]
    height, width = (min(picture.shape[dim] for picture in three) for dim in (1, 2))
    batches.append(torch.stack([picture[:, :height, :width] for picture in three]))
    equal = pixels = 0
    difference, network = 0.0, deployed(module.model)
    for batch in batches:
        with torch.no_grad():
            x = module.normalize(batch)
            expected, ours = logits(module.model, x), logits(network, x)
            result = run(batch)
        labels = result if gives == "labels" else result.argmax(1)
        equal += int((labels == expected.argmax(1)).sum())
        pixels += labels.numel()
        difference = max(difference, float((ours - expected).abs().max() / expected.std()))
    sizes = len({batch.shape for batch in batches})
    return {"images": len(pictures), "sizes": sizes, "equal_labels": equal / pixels, "largest_difference": difference}


if __name__ == "__main__":
    launch.main("export", export)
