"""Plot of a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from fastfcn_pl.evaluation.fonts import font_file

_MAX_NUMBERED = 25  # with more classes, cells are too small for numbers
_CELL_INCHES, _FONT_SIZE = 0.19, 7.0


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path | IO[bytes]) -> None:
    """Plot pixel counts `(num_classes, num_classes)`, rows true, as a PNG that shows each cell's share of its row.

    Colours are perceptually uniform (viridis), and up to 25 classes the cells also show percentages. Rows without
    pixels are grey. A class whose name no font has is shown by its id.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure  # pyplot would keep the figure alive and pick a GUI
    from matplotlib.font_manager import FontProperties

    count = len(classes)
    with np.errstate(invalid="ignore"):
        shares = matrix / matrix.sum(1, keepdims=True)
    side = 1.6 + max(4.0, _CELL_INCHES * count * (1.7 if count <= _MAX_NUMBERED else 1.0))
    figure = Figure(figsize=(side + 0.6, side))
    axis = figure.add_subplot()
    image = axis.imshow(100 * shares, vmin=0, vmax=100, cmap=colormaps["viridis"].with_extremes(bad="lightgrey"))
    files = [font_file(name) for name in classes]
    names = [str(i) if file is None else name for i, (name, file) in enumerate(zip(classes, files, strict=True))]
    axis.set_xticks(range(count), names, rotation=90, parse_math=False)  # a $ is not math
    axis.set_yticks(range(count), names, parse_math=False)
    for label, file in zip([*axis.get_xticklabels(), *axis.get_yticklabels()], [*files, *files], strict=True):
        label.set_fontproperties(FontProperties(fname=file, size=_FONT_SIZE))
    axis.set_title("pixels of each true class, %", fontsize=10, loc="left")
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.tick_params(length=0)
    if count <= _MAX_NUMBERED:
        for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
            share = shares[row, column]
            color = "black" if share > 0.6 else "white"
            axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=_FONT_SIZE - 1, color=color)
    figure.colorbar(image, label="% of the true class", shrink=0.6)
    figure.savefig(path, format="png", dpi=130, bbox_inches="tight")  # three times as fast as a layout
