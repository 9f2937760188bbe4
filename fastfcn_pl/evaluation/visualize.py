"""Pictures of labels: uint8 arrays in, uint8 arrays `(H, W, 3)` out."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastfcn_pl.core.types import IGNORE, DatasetSpec

ABOUT = "fastfcn_pl"
"""The key, in the PNG of a `comparison`, of a JSON text with the panels' height and the colours of classes in sight."""
_IGNORED = (255, 255, 255)
_RIGHT, _WRONG = (225, 225, 225), (213, 94, 0)  # light grey and vermilion of Okabe and Ito: safe for colour-blind eyes
_GAP, _LINE, _SMALLEST = 6, 18, 192


def colorize(labels: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    """Paint class indices `(H, W)` in the data set's colours; ignored pixels are white."""
    table = np.full((256, 3), _IGNORED, np.uint8)
    table[: spec.num_classes] = spec.palette
    return np.take(table, labels, 0)


def overlay(image: np.ndarray, labels: np.ndarray, spec: DatasetSpec, opacity: float = 0.6) -> np.ndarray:
    """Lay the colours of `labels` `(H, W)` over `image` `(H, W, 3)`; ignored pixels show the image."""
    colors = np.where((labels == IGNORE)[..., None], image, colorize(labels, spec))
    return np.asarray(Image.blend(Image.fromarray(image), Image.fromarray(colors), opacity))


def errors(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return 1 for wrong pixels, 0 for right ones, and `IGNORE`; uint8, as both arguments `(H, W)`."""
    return np.where(target == IGNORE, IGNORE, prediction != target).astype(np.uint8)


def error_map(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Paint wrong pixels vermilion, right ones grey, ignored ones white; both arguments `(H, W)`."""
    table = np.full((256, 3), _IGNORED, np.uint8)
    table[:2] = _RIGHT, _WRONG
    return np.take(table, errors(prediction, target), 0)


def zoom_of(width: int) -> int:
    """Return how many times an image of `width` pixels is enlarged: a thumbnail could not be read."""
    return -(-_SMALLEST // width)


def comparison(image: np.ndarray, target: np.ndarray, prediction: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    """Put image, truth, prediction and error side by side, above a legend of the classes in sight."""
    zoom = zoom_of(image.shape[1])
    image, target, prediction = (x.repeat(zoom, 0).repeat(zoom, 1) for x in (image, target, prediction))
    panels = {
        "image": image,
        "truth": overlay(image, target, spec),
        "prediction": overlay(image, prediction, spec),
        "error": error_map(prediction, target),
    }
    height, width = image.shape[:2]
    canvas = Image.new("RGB", (4 * width + 3 * _GAP, _LINE + height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for i, (title, panel) in enumerate(panels.items()):
        draw.text((i * (width + _GAP), 2), title, "black", font)
        canvas.paste(Image.fromarray(panel), (i * (width + _GAP), _LINE))
    seen = np.union1d(np.unique(target), np.unique(prediction))
    return np.vstack([np.asarray(canvas), legend([int(c) for c in seen if c != IGNORE], spec, canvas.width)])


def panels(picture: np.ndarray, height: int) -> dict[str, np.ndarray]:
    """Cut out of a picture what `comparison` put side by side there; `height` is the panels', in pixels."""
    width = (picture.shape[1] - 3 * _GAP) // 4
    names = ("image", "truth", "prediction", "error")
    return {
        name: picture[_LINE : _LINE + height, i * (width + _GAP) : i * (width + _GAP) + width]
        for i, name in enumerate(names)
    }


def legend(classes: list[int], spec: DatasetSpec, width: int) -> np.ndarray:
    """Return a strip of `width` pixels that names `classes`, each beside its colour, in as many lines as it takes."""
    font = ImageFont.load_default(12)
    lines, x = [[]], 0  # type: tuple[list[list[tuple[int, int]]], int]
    for index in classes:
        length = _LINE + int(font.getlength(spec.classes[index])) + 2 * _GAP
        if x + length > width and lines[-1]:
            lines.append([])
            x = 0
        lines[-1].append((index, x))
        x += length
    strip = Image.new("RGB", (width, _GAP + _LINE * len(lines)), "white")
    draw = ImageDraw.Draw(strip)
    for row, entries in enumerate(lines):
        y = _GAP + row * _LINE
        for index, x in entries:
            draw.rectangle((x, y + 2, x + 12, y + 14), fill=spec.palette[index], outline="grey")
            draw.text((x + _LINE, y), spec.classes[index], "black", font)
    return np.asarray(strip)


def titled(picture: np.ndarray, text: str) -> np.ndarray:
    """Put a line of text above a picture, its end where it is too long for it."""
    font, width = ImageFont.load_default(12), picture.shape[1]
    while text and font.getlength(text) > width:
        text = text[1:]
    strip = Image.new("RGB", (width, _LINE), "white")
    ImageDraw.Draw(strip).text((0, 2), text, "black", font)
    return np.vstack([np.asarray(strip), picture])


def stack(pictures: list[np.ndarray]) -> np.ndarray:
    """Put pictures below each other, on white where one is narrower than the widest."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, _GAP), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.vstack(padded)
