"""A network as a folder of plain data, which may be a repository of the Hugging Face Hub: weights and configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from fastfcn_pl import __version__
from fastfcn_pl.config import build
from fastfcn_pl.config.plain_data import plain_data, read_json
from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.models.weights import hub

CONFIG = "config.json"
_PARTS = ("model", "protocol", "channels_last", "data", "seed")
"""Parts of a run's configuration that scoring and prediction need."""
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")
_FILE = re.compile(r"\.(ckpt|pth|pt|pt2|tar|bin|onnx|xml|pte|torchscript|safetensors)$", re.IGNORECASE)


def find(source: str | Path) -> Path | None:
    """Return the folder that `source` names: `<folder>`, `hf-hub:<repository>` or `<organisation>/<name>[@revision]`.

    A repository is fetched. None for anything else, such as a file.
    """
    text, path = str(source), Path(source)
    if path.exists():
        return path if (path / CONFIG).is_file() else None
    if not text.startswith(hub.SCHEME):
        is_file = path.is_absolute() or _FILE.search(text) or Path(text.partition("/")[0]).exists()
        if is_file or not _REPOSITORY.fullmatch(text):
            return None
    return hub.fetch(text.removeprefix(hub.SCHEME), CONFIG, hub.WEIGHTS)[0].parent


def files(folder: Path) -> list[Path]:
    """Return the files that are the network."""
    return [folder / CONFIG, folder / hub.WEIGHTS]


def read(folder: Path) -> dict[str, Any]:
    """Return the content of a folder as a checkpoint has it; raises UserError if it is damaged or not one of ours."""
    content, weights = read_json(folder / CONFIG), folder / hub.WEIGHTS
    if not isinstance(content, dict) or not {"config", "spec"} <= content.keys():
        raise UserError(f"{folder / CONFIG} is not of a network of fastfcn_pl: push_to_hub writes one")
    try:
        state_dict = load_file(weights)
    except Exception as error:  # the reader fails in any way on other files
        raise UserError(f"{weights} cannot be read: it is missing or damaged; fetch it again") from error
    return {"state_dict": state_dict, "hyper_parameters": {key: content[key] for key in ("config", "spec")}}


def write(folder: Path, state_dict: Mapping[str, Tensor], config: Mapping[str, Any], spec: DatasetSpec) -> None:
    """Write a network's weights and what its configuration says about scoring and prediction.

    Paths of this machine are left out.
    """
    parts = plain_data({name: config[name] for name in _PARTS if name in config})
    parts["trainer"] = {"precision": (config.get("trainer") or {}).get("precision")}
    build.only_to_predict(parts)
    parts["data"] = _without_paths(parts.get("data"))
    content = {"library": "fastfcn_pl", "version": __version__, "config": parts, "spec": spec.to_dict()}
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    weights = {name: tensor.contiguous().clone() for name, tensor in state_dict.items() if not name.startswith("loss.")}
    save_file(weights, folder / hub.WEIGHTS, metadata={"format": "pt"})


def _without_paths(node: Any) -> Any:
    """Return plain containers in which `???`, a value to be set, replaces absolute paths and `root`."""
    if isinstance(node, dict):
        return {key: "???" if key == "root" else _without_paths(item) for key, item in node.items()}
    if isinstance(node, list):
        return [_without_paths(item) for item in node]
    return "???" if isinstance(node, str) and node.startswith(("/", "~")) else node
