"""Loading what was trained: a checkpoint rebuilds its module without the files that configured it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fastfcn_pl import build
from fastfcn_pl.contracts import DatasetSpec, UserError
from fastfcn_pl.module import SegmentationModule


def load(path: str | Path) -> SegmentationModule:
    """Return the module of a checkpoint, on the CPU, in eval mode; `module.model` is the bare network.

    Raises UserError where the file is missing, truncated, wants more than weights, or is not one of ours.
    """
    content = read(path)
    return restore(content, config_of(content), path)


def restore(content: dict[str, Any], cfg: build.Config, path: str | Path) -> SegmentationModule:
    """Build the module of `cfg` with the weights of a checkpoint's `content`, which came from `path`."""
    module = build.module(cfg, DatasetSpec.from_dict(content["hyper_parameters"]["spec"]))
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint={path} does not fit the network that it describes: {reason}") from error
    return module.eval()


def read(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint of ours, loaded without running what is in it."""
    if not Path(path).is_file():
        raise UserError(f"checkpoint={path}: no such file; a run's are in its folder checkpoints/")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not a checkpoint makes the reader fail in any way
        reason = "it is truncated, not a torch file, or wants more than weights"
        raise UserError(f"checkpoint={path} cannot be read: {reason}") from error
    if not isinstance(content, dict) or "spec" not in content.get("hyper_parameters", {}):
        raise UserError(f"checkpoint={path} was not written by fastfcn_pl.train")
    return content


def config_of(content: dict[str, Any]) -> build.Config:
    """Return the configuration of the run that wrote a checkpoint, to build its network with."""
    return build.to_load(content["hyper_parameters"]["config"])
