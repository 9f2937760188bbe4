"""The published networks, built at run time out of a checkout of wuhuikai/FastFCN that REFERENCE names."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import batchnorm

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "encnet_r50": ("encnet.EncNet", {"backbone": "resnet50", "se_loss": True, "lateral": False}),
    "encnet_r101": ("encnet.EncNet", {"backbone": "resnet101", "se_loss": True, "lateral": False}),
    "psp_r50": ("psp.PSP", {"backbone": "resnet50", "se_loss": False}),
    "deeplab_r50": ("deeplabv3.DeepLabV3", {"backbone": "resnet50", "se_loss": False}),
}
"""File and class of each, and what the authors' scripts build it with."""


def checkout() -> Path | None:
    """Return the folder that REFERENCE names, None where it is not set."""
    if "REFERENCE" not in os.environ:
        return None
    folder = Path(os.environ["REFERENCE"])
    if not (folder / "encoding" / "models" / "base.py").is_file():
        raise SystemExit(f"REFERENCE={folder}: this is no checkout of wuhuikai/FastFCN")
    return folder


def published_network(name: str, num_classes: int = 59, jpu: bool = True, **options: Any) -> nn.Module:
    """Return the published network `name` of `NETWORKS`, with its auxiliary head, random weights, in training mode.

    Without `jpu` it is the dilated one. Its `forward` returns a tuple, whose first are logits at the image's size.
    """
    _package()
    place, own = NETWORKS[name]
    file, kind = place.split(".")
    network = getattr(importlib.import_module(f"encoding.models.{file}"), kind)
    neck = {"jpu": "JPU"} if jpu else {"jpu": None, "dilated": True}
    made: nn.Module = network(num_classes, aux=True, norm_layer=_BatchNorm, **neck, **(own | options))
    return made


class _BatchNorm(batchnorm._BatchNorm):
    """Batch norm of maps and of codewords, as theirs is, which synchronises GPUs and trains on nothing else."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass


def _package() -> None:
    """Make its package importable without its `__init__`, which wants CUDA, and its backbones without a download."""
    if "encoding" in sys.modules:
        return
    folder = checkout()
    if folder is None:
        raise SystemExit("set REFERENCE=<a checkout of wuhuikai/FastFCN>")
    package = ModuleType("encoding")
    package.__path__ = [str(folder / "encoding")]
    sys.modules["encoding"] = package
    backbones = importlib.import_module("encoding.dilated")
    for name in ("resnet50", "resnet101"):
        setattr(backbones, name, _from_scratch(getattr(backbones, name)))


def _from_scratch(make: Any) -> Any:
    return lambda pretrained, root, **options: make(pretrained=False, **options)
