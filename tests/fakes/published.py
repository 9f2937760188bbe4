"""State dicts as published code writes them."""

from __future__ import annotations

import re
from pathlib import Path

import timm
import torch
from omegaconf import OmegaConf
from torch import Tensor

GOLDEN = Path(__file__).parent.parent / "golden" / "published.yaml"


def state_dict(source: str, backbone: str, parts: str) -> dict[str, Tensor]:
    """Return the names and shapes of a network of `source` (official, mmseg) with these parts, on the default device.

    `backbone` is timm's name of it; timm has the names of its tensors as the official code has them.
    """
    state = {}
    for name, tensor in timm.create_model(backbone).state_dict().items():
        if source == "official":
            state[f"pretrained.{name}"] = tensor
        elif not name.startswith("fc."):
            state["backbone." + re.sub(r"^bn1\.", "stem.7.", re.sub(r"^conv1\.", "stem.", name))] = tensor
    golden = OmegaConf.to_container(OmegaConf.load(GOLDEN))[source]  # type: ignore[call-overload, index]
    for part in parts.split():
        for module, shapes in golden[part].items():
            state |= {f"{module}.{name}": torch.zeros(shape) for name, shape in _tensors(shapes).items()}
    return state


def _tensors(shapes: int | list[int] | dict[str, list[int]]) -> dict[str, list[int]]:
    if isinstance(shapes, int):
        norm = {name: [shapes] for name in ("weight", "bias", "running_mean", "running_var")}
        return {**norm, "num_batches_tracked": []}
    return shapes if isinstance(shapes, dict) else {"weight": shapes}
