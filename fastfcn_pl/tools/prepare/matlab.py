"""Reading of label maps from MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastfcn_pl.core.types import UserError


def read_map(path: Path, variable: str, *fields: str) -> np.ndarray:
    """Return the array `(H, W)` of a variable or of a field in it; raises UserError if it is missing."""
    from scipy.io import loadmat  # 0.2 s, which other data sets need not wait for

    try:
        value = loadmat(path, variable_names=[variable])[variable]
        for field in fields:
            value = value[field][0, 0]
    except Exception as error:  # scipy raises anything for a damaged file
        raise UserError(
            f"{path} has no readable label map {'.'.join((variable, *fields))} ({error}): "
            f"remove the folder {path.parent} and run again to extract it afresh"
        ) from error
    return np.asarray(value)
