"""Label maps in MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastfcn_pl.core.types import UserError


def read_map(path: Path, variable: str, *fields: str) -> np.ndarray:
    """Return the array `(H, W)` of a variable, or of a field in it; raises UserError where there is none."""
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise UserError("label maps in .mat files are read with scipy: pip install 'fastfcn-pl[prepare]'") from error
    try:
        value = loadmat(path, variable_names=[variable])[variable]
        for field in fields:
            value = value[field][0, 0]
    except Exception as error:  # scipy has none of its own for a damaged file: it raises whatever it stumbles over
        raise UserError(
            f"{path} has no label map {'.'.join((variable, *fields))} that can be read ({error}): "
            f"remove the folder {path.parent} and run again, which unpacks it anew"
        ) from error
    return np.asarray(value)
