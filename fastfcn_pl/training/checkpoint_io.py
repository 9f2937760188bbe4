"""Checkpoint files as Lightning writes and reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from fastfcn_pl.core.atomic_io import atomic_write


class StagedCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its target, then rename it: a torn file never carries the name of a checkpoint.

    Lightning's own writes to the system's temporary folder and moves from there, which is a copy when that is another
    disk. Raises UserError where the disk does not take the file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with atomic_write(path) as hidden, hidden.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's writer hides what the disk said
                cause: BaseException | None = error
                while cause is not None and not isinstance(cause, OSError):
                    cause = cause.__context__
                raise cause or error from None

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint; if its run's folder was moved, the paths in its callbacks' states are adapted."""
        content = super().load_checkpoint(path, map_location, weights_only)
        if "hyper_parameters" in content:  # not in what a forked rank hands back to the process that forked it
            folder = content["hyper_parameters"]["config"]["run_dir"]
            content["callbacks"] = moved(content["callbacks"], folder, str(Path(path).resolve().parents[1]))
        return content


def moved(value: Any, old: str, new: str) -> Any:
    """Return plain containers with paths below the folder `old` moved below `new`."""
    if isinstance(value, dict):
        return {moved(key, old, new): moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(item, old, new) for item in value]
    inside = isinstance(value, str) and (value == old or value.startswith(f"{old}/"))
    return new + value.removeprefix(old) if inside else value
