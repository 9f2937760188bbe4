"""The same images side by side for several runs, cut out of the overlays that each run left."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fastfcn_pl.contracts import UserError
from fastfcn_pl.reports.runs import Run
from fastfcn_pl.visualize import ABOUT, panels, stack, titled

IMAGES, RUNS = 4, 6
"""The most that are shown."""
_WIDTH, _GAP = 360, 6


@dataclass(frozen=True)
class Row:
    """One image, its truth, and what each run made of it, in the order of the runs; None where one has it not."""

    image: np.ndarray
    truth: np.ndarray
    predictions: list[np.ndarray | None]
    errors: list[np.ndarray | None]
    colors: dict[str, tuple[int, int, int]]


def rows(runs: Sequence[Run]) -> list[Row]:
    """Return the images that most of `runs` show, in the order of their files; an image is known by its pixels."""
    found: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    colors: dict[str, dict[str, tuple[int, int, int]]] = {}
    for i, run in enumerate(runs):
        for file in sorted((run.folder / "overlays").glob("*.png"), key=lambda file: int(file.stem)):
            cut, seen = _read(file)
            if cut:
                key = hashlib.sha1(cut["image"].tobytes()).hexdigest()
                found.setdefault(key, {})[i] = cut
                colors.setdefault(key, {}).update(seen)
    chosen = sorted(found, key=lambda key: -len(found[key]))[:IMAGES]  # stable: else in the order of their files
    made = []
    for key in chosen:
        by_run = found[key]
        first = next(iter(by_run.values()))
        predictions, errors = (
            [by_run[i][name] if i in by_run else None for i in range(len(runs))] for name in ("prediction", "error")
        )
        made.append(Row(first["image"], first["truth"], predictions, errors, colors[key]))
    return made


def _read(file: object) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, int, int]]]:
    """Return the panels of an overlay and the classes in sight; nothing of one that does not tell them."""
    try:
        with Image.open(file) as picture:  # type: ignore[arg-type]
            about = json.loads(picture.info.get(ABOUT, "{}"))
            if not about:
                return {}, {}
            return panels(np.asarray(picture.convert("RGB")), about["height"]), about["colors"]
    except OSError as error:
        raise UserError(f"{file} cannot be read as a picture ({error}): remove it") from error


def data_uri(picture: np.ndarray) -> str:
    """Return a picture for an HTML page, no wider than it is shown there."""
    return "data:image/webp;base64," + base64.b64encode(_encoded(_small(picture))).decode()


def sheet(made: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """Return one picture of `made`, a column for the image, the truth and each run, under their names."""
    titles = ["image", "truth", *names]
    lines = []
    for i, row in enumerate(made):
        cells = [_small(cell) for cell in (row.image, row.truth, *(_or_white(p, row.image) for p in row.predictions))]
        if i == 0:
            cells = [titled(cell, title) for cell, title in zip(cells, titles, strict=True)]
        lines.append(np.hstack([np.pad(cell, ((0, 0), (0, _GAP), (0, 0)), constant_values=255) for cell in cells]))
    return stack(lines)


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
