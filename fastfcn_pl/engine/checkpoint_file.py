"""Reading a file of weights that anybody may have written: nothing in it runs, and it takes no more than its size."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import network_folder
from fastfcn_pl.models.weights.state_dict_io import HARMLESS

_MOST_CLAIMED = 2**30
"""Bytes of tensors that a file may hold as views of fewer values."""


def step_of(path: str | Path) -> int:
    """Return the step at which a checkpoint of a run was saved, without reading its weights."""
    return int(read_file(path, mmap=True)["global_step"])


def read_file(path: str | Path, mmap: bool = False) -> Any:
    """Return the content of a torch file, a network's folder or a repository of the hub, as a checkpoint has it.

    Raises UserError if it is missing, truncated or wants more than weights.
    """
    if (folder := network_folder.find(path)) is not None:
        return network_folder.read(folder)
    if not Path(path).is_file():
        raise UserError(f"checkpoint={path}: no such file; a run's are in its folder checkpoints/")
    _check_archive(Path(path))
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a file that is not a checkpoint makes the reader fail in any way
        reason = "it is truncated, not a torch file, or wants more than weights (if you trust it, save its state_dict)"
        raise UserError(f"checkpoint={path} cannot be read: {reason}") from error


def state_dict_of(content: Any) -> dict[str, torch.Tensor]:
    """Return the state dict that a file's content is or has; raises UserError if it has none of plain tensors."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError("it holds no state dict")
    if strange := [name for name, tensor in state.items() if tensor.layout is not torch.strided or tensor.is_meta]:
        raise UserError(f"{strange[0]} is no tensor with a value in each place")
    if sum(map(_claimed, state.values())) > _MOST_CLAIMED:
        raise UserError("its state dict claims more values than the file holds")
    return state


def unusable(path: str | Path, error: Exception) -> UserError:
    """Return the line for a checkpoint that was read and then made code fail."""
    reason = str(error)
    if not isinstance(error, UserError):
        cause = f"{type(error).__name__}: {' '.join(reason.split())}"
        reason = f"it is damaged, or it or the code of a part was changed ({cause})"
    return UserError(f"checkpoint={path} cannot be used: {reason}")


def _check_archive(path: Path) -> None:
    """Raise UserError if a file claims to hold more than its size: torch writes archives without compression."""
    if not zipfile.is_zipfile(path):
        return
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:  # torch names the defect
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise UserError(
                f"checkpoint={path} cannot be read: it claims to hold more than its size; save it with torch"
            )


def _claimed(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor that its file does not hold, because one stored value stands for many."""
    return max(0, tensor.numel() * tensor.element_size() - tensor.untyped_storage().nbytes())
