"""Comparison of several runs on the same images, cut out of the overlays that each run wrote."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.evaluation.visualize import METADATA_KEY, add_title, legend, panels, stack
from fastfcn_pl.tools.report.files import check_shape, printable
from fastfcn_pl.tools.report.run_schema import OVERLAY
from fastfcn_pl.tools.report.runs import Run

MAX_IMAGES, MAX_RUNS = 4, 12
_WIDTH, _GAP = 360, 6
_MAX_PIXELS = 40_000_000
_READ_ERRORS = (OSError, ValueError, SyntaxError, RecursionError, Image.DecompressionBombError)  # of Pillow and json
_MAX_COLUMNS = 5
"""Images side by side on a sheet; more would be too small on a page."""


@dataclass(frozen=True)
class Row:
    """An image, its truth, and the prediction and error of each run; None for runs without this image."""

    image: np.ndarray
    truth: np.ndarray
    predictions: list[np.ndarray | None]
    errors: list[np.ndarray | None]
    colors: dict[str, tuple[int, int, int]]


def sample_rows(runs: Sequence[Run]) -> list[Row]:
    """Return images that most of `runs` have, evenly spread over their files. Images are matched by their pixels."""
    panels_by_image: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    colors: dict[str, dict[str, tuple[int, int, int]]] = {}
    for i, run in enumerate(runs):
        overlays = [
            file for file in (run.folder / "overlays").glob("*.png") if file.stem.isdecimal() and file.is_file()
        ]
        for file in sorted(overlays, key=lambda file: (len(file.stem), file.stem)):
            overlay_panels, overlay_colors = _read_overlay(file)
            if overlay_panels:
                key = hashlib.sha1(overlay_panels["image"].tobytes()).hexdigest()
                panels_by_image.setdefault(key, {})[i] = overlay_panels
                colors.setdefault(key, {}).update(overlay_colors)
    keys = sorted(panels_by_image, key=lambda key: -len(panels_by_image[key]))  # stable, so otherwise in file order
    most_shared = [key for key in keys if len(panels_by_image[key]) == len(panels_by_image[keys[0]])]
    spread = np.linspace(0, len(most_shared) - 1, MAX_IMAGES).round().astype(int)  # neighbours may be of one scene
    selected = [most_shared[i] for i in spread] if len(most_shared) > MAX_IMAGES else keys[:MAX_IMAGES]
    rows = []
    for key in selected:
        by_run = panels_by_image[key]
        first = next(iter(by_run.values()))
        predictions, errors = (
            [by_run[i][name] if i in by_run else None for i in range(len(runs))] for name in ("prediction", "error")
        )
        rows.append(Row(first["image"], first["truth"], predictions, errors, colors[key]))
    return rows


def _read_overlay(file: Path) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, int, int]]]:
    """Return the panels of an overlay and the colours of its classes; both are empty if it has no metadata."""
    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise UserError(f"{image.width} x {image.height} pixels are too many")
            metadata = json.loads(image.info.get(METADATA_KEY, "{}"))
            if not metadata:
                return {}, {}
            check_shape(metadata, OVERLAY, METADATA_KEY)
            overlay_panels = panels(np.asarray(image.convert("RGB")), metadata["height"])
    except (*_READ_ERRORS, UserError) as error:
        reason = " ".join(printable(str(error)).split())[:200]
        raise UserError(f"{file} cannot be read as an overlay ({reason}): remove it") from error
    shape = metadata["height"], overlay_panels["image"].shape[1], 3
    colors = [value for color in metadata["colors"].values() for value in color]
    shapes_match = {panel.shape for panel in overlay_panels.values()} == {shape}
    if not shapes_match or 0 in shape or not all(0 <= c <= 255 for c in colors):
        raise UserError(f"{file} does not match its metadata: remove it")
    return overlay_panels, {printable(name): tuple(color) for name, color in metadata["colors"].items()}


def data_uri(image: np.ndarray) -> str:
    """Return an image for an HTML page, no wider than it is shown there."""
    return "data:image/webp;base64," + base64.b64encode(_encode(_shrink(image))).decode()


def sheet(rows: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """Return one image that shows `rows` with the predictions of all runs, and a legend of the visible classes."""
    titles = ["image", "truth", *names]
    lines_per_row = -(-len(titles) // _MAX_COLUMNS)
    columns = -(-len(titles) // lines_per_row)
    lines: list[np.ndarray] = []
    for row in rows:
        cells = [_shrink(cell) for cell in (row.image, row.truth, *(_or_white(p, row.image) for p in row.predictions))]
        if not lines or lines_per_row > 1:
            cells = [add_title(cell, title) for cell, title in zip(cells, titles, strict=True)]
        for i in range(0, len(cells), columns):
            line = [np.pad(cell, ((0, 0), (0, _GAP), (0, 0)), constant_values=255) for cell in cells[i : i + columns]]
            lines.append(np.hstack(line))
    colors = {name: color for row in rows for name, color in row.colors.items()}
    if not colors:
        return stack(lines)
    visible = DatasetSpec("visible", tuple(colors), tuple((r, g, b) for r, g, b in colors.values()))
    return stack([*lines, legend(list(range(len(colors))), visible, max(line.shape[1] for line in lines))])


def _or_white(image: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    return np.full_like(like, 255) if image is None else image


def _shrink(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if width <= _WIDTH:
        return image
    return np.asarray(Image.fromarray(image).resize((_WIDTH, round(height * _WIDTH / width)), Image.Resampling.BOX))


def _encode(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=82)
    return file.getvalue()
