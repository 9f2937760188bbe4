"""Loading what was trained, here or by others: a file of weights rebuilds its module without what configured it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar

from fastfcn_pl import build, signatures
from fastfcn_pl.contracts import DatasetSpec, UserError
from fastfcn_pl.data.palette import voc_colors
from fastfcn_pl.models.weights.published import Published, recognise
from fastfcn_pl.module import SegmentationModule

# A genuine official checkpoint holds its best score as a numpy float64, under the name that numpy 1 gave to it.
_HARMLESS: list[Any] = [
    (scalar, "numpy.core.multiarray.scalar"),
    scalar,
    np.dtype,
    np.dtypes.Float64DType,
]
_NUMBERED = "unknown"
"""The name of the data set of a published network whose data set was not said."""
# What is raised by code that meets a value of another kind than it was written for.
_NONSENSE = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def load(path: str | Path, data: str | None = None) -> SegmentationModule:
    """Return the module of a checkpoint of ours or a published one, on the CPU, in eval mode.

    `module.model` is the bare network. `data` names the data set whose class names and palette a published network
    gets; without it classes are numbered. Raises UserError where the file is missing, truncated, wants more than
    weights, or is of a network that we do not know.
    """
    content = read(path, build.compose([f"data={data}"]).data if data else None)
    return restore(content, config_of(content), path)


def restore(content: dict[str, Any], cfg: build.Config, path: str | Path) -> SegmentationModule:
    """Build the module of `cfg` with the weights of a checkpoint's `content`, which came from `path`."""
    try:
        module = build.module(cfg, _spec(content))
    except _NONSENSE as error:
        raise _unusable(path, error) from error
    fit(module, content, path)
    return module.eval()


def check_classes(content: dict[str, Any], spec: DatasetSpec, path: str | Path) -> None:
    """Raise UserError where a checkpoint's `content`, which came from `path`, is of other classes than `spec`."""
    known = _spec(content)
    if known.name == _NUMBERED:
        raise UserError(
            f"checkpoint={path} is of published weights, which say nothing of their {known.num_classes} classes: "
            "name the data set that they are for, as data=ade20k data.root=<dir>"
        )
    if known.classes != spec.classes:
        raise UserError(
            f"checkpoint={path} knows the {known.num_classes} classes of {known.name}, not the "
            f"{spec.num_classes} of {spec.name}: take the data set that it was trained for"
        )


def fit(module: SegmentationModule, content: dict[str, Any], path: str | Path) -> None:
    """Load the weights of a checkpoint's `content`, which came from `path`; raises UserError where one does not fit."""
    wanted, given = module.state_dict(), content["state_dict"]
    missing, left = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    misfits = sorted(name for name in wanted.keys() & given.keys() if wanted[name].shape != given[name].shape)
    for names, what in ((missing, "are missing"), (left, "are left over"), (misfits, "have another shape")):
        if names:
            raise UserError(f"checkpoint={path}: {len(names)} tensors {what}: {', '.join(names[:8])}")
    module.load_state_dict(given)


def read(path: str | Path, data: build.Config | None = None) -> dict[str, Any]:
    """Return the content of a checkpoint, a published one as if it were ours; nothing that is in it is run.

    A published one is of the classes of the data set `data`; without it they are numbered.
    """
    content = _read_file(path)
    if not _is_ours(content):
        return as_ours(_recognise(content, path), data)
    try:
        for part in (_state_dict, _spec, config_of):
            part(content)
    except (UserError, *_NONSENSE) as error:
        raise _unusable(path, error) from error
    return content


def read_published(path: str | Path) -> Published:
    """Return the network of a published checkpoint."""
    return _recognise(_read_file(path), path)


def _is_ours(content: Any) -> bool:
    ours = content.get("hyper_parameters") if isinstance(content, dict) else None
    return isinstance(ours, dict) and "spec" in ours


def _recognise(content: Any, path: str | Path) -> Published:
    try:
        return recognise(_state_dict(content))
    except (UserError, *_NONSENSE) as error:
        raise _unusable(path, error) from error


def _unusable(path: str | Path, error: Exception) -> UserError:
    reason = str(error)
    if not isinstance(error, UserError):
        reason = f"it is damaged, or was changed ({type(error).__name__}: {' '.join(reason.split())})"
    return UserError(f"checkpoint={path} cannot be used: {reason}")


def as_ours(published: Published, data: build.Config | None = None) -> dict[str, Any]:
    """Return a published network as the content of a checkpoint of ours, with the classes of the data set `data`."""
    # In another memory format than theirs kernels round otherwise: outputs differ by 1e-5, gradients by up to 5e-4.
    cfg = build.compose([*published.architecture.overrides, "channels_last=false", "logger=none", "run_dir=."])
    count = published.architecture.num_classes
    if data is None:
        spec = DatasetSpec(_NUMBERED, tuple(f"class {i}" for i in range(count)), voc_colors(range(count)))
    else:
        cfg.data = data
        signatures.check(cfg)
        spec = build.datamodule(cfg).spec
    if spec.num_classes != count:
        raise UserError(f"the network has {count} classes, but data set {spec.name} has {spec.num_classes}")
    return {
        "state_dict": {f"model.{name}": tensor for name, tensor in published.state.items()},
        "hyper_parameters": {"config": build.plain(cfg), "spec": spec.to_dict()},
    }


def _read_file(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise UserError(f"checkpoint={path}: no such file; a run's are in its folder checkpoints/")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not a checkpoint makes the reader fail in any way
        reason = "it is truncated, not a torch file, or wants more than weights (if you trust it, save its state_dict)"
        raise UserError(f"checkpoint={path} cannot be read: {reason}") from error


def _state_dict(content: Any) -> dict[str, torch.Tensor]:
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError("it holds no state dict")
    return state


def _spec(content: dict[str, Any]) -> DatasetSpec:
    return DatasetSpec.from_dict(content["hyper_parameters"]["spec"])


def config_of(content: dict[str, Any]) -> build.Config:
    """Return the configuration of the run that wrote a checkpoint, to build its network with."""
    return build.to_load(content["hyper_parameters"]["config"])
