"""Conversion of Cityscapes masks from label ids to train ids."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.pairs import glob_visible
from fastfcn_pl.tools.prepare.write_masks import write_all


def train_ids(root: Path, num_workers: int | None, *, labels: str) -> None:
    """Write `*_gtFine_labelTrainIds.png` beside each `*_gtFine_labelIds.png` if `labels` is `labelTrainIds`.

    The result equals that of csCreateTrainIdLabelImgs, which draws the polygons again.
    """
    if labels != "labelTrainIds":
        return
    from fastfcn_pl.data.datasets.cityscapes import REMAPS  # imported late to keep worker processes light

    table = np.array([REMAPS["labelIds"][i] for i in sorted(REMAPS["labelIds"])], np.uint8)
    masks = glob_visible(root / "gtFine", "*/*/*_gtFine_labelIds.png")
    tasks = [(mask, mask.with_name(mask.name.replace("labelIds", labels))) for mask in masks]
    write_all(partial(_read, table), tasks, num_workers)


def _read(table: np.ndarray, path: Path) -> np.ndarray:
    try:
        ids = np.asarray(Image.open(path, formats=["PNG"]))
    except Exception as error:  # decoders raise anything for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as a PNG ({reason}): restore it") from error
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise UserError(f"{path} is not a map of 8-bit ids: restore it")
    if ids.max() >= len(table):
        raise UserError(f"{path} has the id {ids.max()}, but Cityscapes uses 0 to {len(table) - 1}: restore it")
    return table[ids]
