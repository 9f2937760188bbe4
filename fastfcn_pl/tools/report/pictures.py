"""The same images side by side for several runs, cut out of the overlays that each run left."""

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
from fastfcn_pl.tools.report.files import checked, printable
from fastfcn_pl.tools.report.run_schema import OVERLAY
from fastfcn_pl.tools.report.runs import Run

IMAGES, RUNS = 4, 12
"""The most that are shown."""
_WIDTH, _GAP = 360, 6
_MOST_PIXELS = 40_000_000
_BROKEN = (OSError, ValueError, SyntaxError, RecursionError, Image.DecompressionBombError)  # what Pillow and JSON raise
_ACROSS = 5  # pictures beside each other on a sheet: more are too small to see where a page shows it


@dataclass(frozen=True)
class Row:
    """One image, its truth, and what each run made of it, in the order of the runs; None where one has it not."""

    image: np.ndarray
    truth: np.ndarray
    predictions: list[np.ndarray | None]
    errors: list[np.ndarray | None]
    colors: dict[str, tuple[int, int, int]]


def rows(runs: Sequence[Run]) -> list[Row]:
    """Return images that most of `runs` show, evenly spread over their files; an image is known by its pixels."""
    found: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    colors: dict[str, dict[str, tuple[int, int, int]]] = {}
    for i, run in enumerate(runs):
        numbered = [
            file for file in (run.folder / "overlays").glob("*.png") if file.stem.isdecimal() and file.is_file()
        ]
        for file in sorted(numbered, key=lambda file: (len(file.stem), file.stem)):
            cut, seen = _read(file)
            if cut:
                key = hashlib.sha1(cut["image"].tobytes()).hexdigest()
                found.setdefault(key, {})[i] = cut
                colors.setdefault(key, {}).update(seen)
    order = sorted(found, key=lambda key: -len(found[key]))  # stable: else in the order of their files
    alike = [key for key in order if len(found[key]) == len(found[order[0]])]
    spread = np.linspace(0, len(alike) - 1, IMAGES).round().astype(int)  # neighbours are often frames of one scene
    chosen = [alike[i] for i in spread] if len(alike) > IMAGES else order[:IMAGES]
    made = []
    for key in chosen:
        by_run = found[key]
        first = next(iter(by_run.values()))
        predictions, errors = (
            [by_run[i][name] if i in by_run else None for i in range(len(runs))] for name in ("prediction", "error")
        )
        made.append(Row(first["image"], first["truth"], predictions, errors, colors[key]))
    return made


def _read(file: Path) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, int, int]]]:
    """Return the panels of an overlay and the classes in sight; nothing of one that does not tell them."""
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise UserError(f"it has {picture.width} x {picture.height} pixels")
            about = json.loads(picture.info.get(METADATA_KEY, "{}"))
            if not about:
                return {}, {}
            checked(about, OVERLAY, METADATA_KEY)
            cut = panels(np.asarray(picture.convert("RGB")), about["height"])
    except (*_BROKEN, UserError) as error:
        reason = " ".join(printable(str(error)).split())[:200]
        raise UserError(f"{file} cannot be read as a picture ({reason}): remove it") from error
    shape = about["height"], cut["image"].shape[1], 3
    colors = [value for color in about["colors"].values() for value in color]
    if {panel.shape for panel in cut.values()} != {shape} or 0 in shape or not all(0 <= c <= 255 for c in colors):
        raise UserError(f"{file} does not hold the four pictures that it says it does: remove it")
    return cut, {printable(name): tuple(color) for name, color in about["colors"].items()}


def data_uri(picture: np.ndarray) -> str:
    """Return a picture for an HTML page, no wider than it is shown there."""
    return "data:image/webp;base64," + base64.b64encode(_encoded(_small(picture))).decode()


def sheet(made: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """Return one picture of `made`: for each its image, the truth and each run, and below all the classes in sight."""
    titles = ["image", "truth", *names]
    rows_each = -(-len(titles) // _ACROSS)
    across = -(-len(titles) // rows_each)
    lines: list[np.ndarray] = []
    for row in made:
        cells = [_small(cell) for cell in (row.image, row.truth, *(_or_white(p, row.image) for p in row.predictions))]
        if not lines or rows_each > 1:
            cells = [add_title(cell, title) for cell, title in zip(cells, titles, strict=True)]
        for i in range(0, len(cells), across):
            line = [np.pad(cell, ((0, 0), (0, _GAP), (0, 0)), constant_values=255) for cell in cells[i : i + across]]
            lines.append(np.hstack(line))
    colors = {name: color for row in made for name, color in row.colors.items()}
    if not colors:
        return stack(lines)
    seen = DatasetSpec("in sight", tuple(colors), tuple((r, g, b) for r, g, b in colors.values()))
    return stack([*lines, legend(list(range(len(colors))), seen, max(line.shape[1] for line in lines))])


def _or_white(picture: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    return np.full_like(like, 255) if picture is None else picture


def _small(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    if width <= _WIDTH:
        return picture
    return np.asarray(Image.fromarray(picture).resize((_WIDTH, round(height * _WIDTH / width)), Image.Resampling.BOX))


def _encoded(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=82)
    return file.getvalue()
