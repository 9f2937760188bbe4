"""Pictures of labels and errors, as uint8 arrays `(H, W, 3)`."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastfcn_pl.core.types import IGNORE, DatasetSpec
from fastfcn_pl.evaluation.fonts import drawable

METADATA_KEY = "fastfcn_pl"
"""PNG text key under which a stored `comparison` keeps its panels' height and its classes' colours, as JSON."""
_IGNORED = (255, 255, 255)
_CORRECT, _WRONG = (225, 225, 225), (213, 94, 0)  # Okabe and Ito's vermilion, for colour-blind readers
_GAP, _LINE, _MIN_WIDTH = 6, 18, 192
_FONT_SIZE, _SWATCH = 12, 11
_STRETCH = 2
"""Standard deviations of a band below and above its mean that pictures show as black and white."""


def displayed(image: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    """Return an image `(H, W, C)` as RGB, uint8; with bands these are the data set's `display_bands`, stretched."""
    if spec.bands is None:
        return image
    chosen = list(spec.bands.display)
    mean, std = (np.array(values, np.float32)[chosen] for values in spec.bands.statistics)
    levels = ((image[..., chosen] - mean) / (2 * _STRETCH * std) + 0.5).clip(0, 1)
    return np.rint(255 * levels).astype(np.uint8).repeat(3 // len(chosen), 2)


def colorize(labels: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    """Return class indices `(H, W)` in the data set's colours; ignored pixels are white."""
    table = np.full((256, 3), _IGNORED, np.uint8)
    table[: spec.num_classes] = spec.palette
    return np.take(table, labels, 0)


def overlay(image: np.ndarray, labels: np.ndarray, spec: DatasetSpec, opacity: float = 0.6) -> np.ndarray:
    """Blend the colours of `labels` `(H, W)` over `image` `(H, W, 3)`; ignored pixels show the image."""
    colors = np.where((labels == IGNORE)[..., None], image, colorize(labels, spec))
    return np.asarray(Image.blend(Image.fromarray(image), Image.fromarray(colors), opacity))


def error_labels(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return 1 for wrong pixels, 0 for correct ones and `IGNORE` for ignored ones, all arrays `(H, W)`, uint8."""
    return np.where(target == IGNORE, IGNORE, prediction != target).astype(np.uint8)


def error_map(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return wrong pixels in vermilion, correct ones in grey, ignored ones in white; both arguments are `(H, W)`."""
    table = np.full((256, 3), _IGNORED, np.uint8)
    table[:2] = _CORRECT, _WRONG
    return np.take(table, error_labels(prediction, target), 0)


def zoom_factor(width: int) -> int:
    """Return the factor that enlarges an image of `width` pixels to a legible size."""
    return -(-_MIN_WIDTH // width)


def comparison(image: np.ndarray, target: np.ndarray, prediction: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    """Return image, truth, prediction and errors side by side, above a legend of the classes that occur."""
    zoom = zoom_factor(image.shape[1])
    image, target, prediction = (x.repeat(zoom, 0).repeat(zoom, 1) for x in (image, target, prediction))
    contents = {
        "image": image,
        "truth": overlay(image, target, spec),
        "prediction": overlay(image, prediction, spec),
        "error": error_map(prediction, target),
    }
    height, width = image.shape[:2]
    canvas = Image.new("RGB", (4 * width + 3 * _GAP, _LINE + height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_SIZE)
    for i, (title, panel) in enumerate(contents.items()):
        draw.text((i * (width + _GAP), 2), title, "black", font)
        canvas.paste(Image.fromarray(panel), (i * (width + _GAP), _LINE))
    _draw_error_key(draw, 3 * (width + _GAP) + int(font.getlength("error")) + 2 * _GAP, canvas.width)
    seen = np.union1d(np.unique(target), np.unique(prediction))
    return np.vstack([np.asarray(canvas), legend([int(c) for c in seen if c != IGNORE], spec, canvas.width)])


def _draw_error_key(draw: ImageDraw.ImageDraw, x: int, end: int) -> None:
    """Draw the meaning of the colours of an error map from `x` to `end` at most, in the line above the map."""
    font = ImageFont.load_default(_FONT_SIZE)
    for color, meaning in ((_WRONG, "wrong"), (_CORRECT, "right"), (_IGNORED, "ignored")):
        width = _SWATCH + 4 + int(font.getlength(meaning))
        if x + width > end:
            return
        draw.rectangle((x, 3, x + _SWATCH, 3 + _SWATCH), fill=color, outline="grey")
        draw.text((x + _SWATCH + 4, 2), meaning, "black", font)
        x += width + _GAP


def panels(picture: np.ndarray, height: int) -> dict[str, np.ndarray]:
    """Return the panels of a `comparison` picture by title; `height` is theirs in pixels."""
    width = (picture.shape[1] - 3 * _GAP) // 4
    names = ("image", "truth", "prediction", "error")
    return {
        name: picture[_LINE : _LINE + height, i * (width + _GAP) : i * (width + _GAP) + width]
        for i, name in enumerate(names)
    }


def legend(classes: list[int], spec: DatasetSpec, width: int) -> np.ndarray:
    """Return a strip `width` pixels wide with the names and colours of `classes`, in as many lines as needed.

    A class whose name no font has is shown by its id.
    """
    names = {index: drawable(spec.classes[index], str(index), _FONT_SIZE) for index in classes}
    lines, x = [[]], 0  # type: tuple[list[list[tuple[int, int]]], int]
    for index, (name, font) in names.items():
        length = _LINE + int(font.getlength(name)) + 2 * _GAP
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
            name, font = names[index]
            draw.text((x + _LINE, y), name, "black", font)
    return np.asarray(strip)


def add_title(picture: np.ndarray, text: str) -> np.ndarray:
    """Return a picture with a line of text above it; text that is too long loses its beginning."""
    (text, font), width = drawable(text, text, _FONT_SIZE), picture.shape[1]
    while text and font.getlength(text) > width:
        text = text[1:]
    strip = Image.new("RGB", (width, _LINE), "white")
    ImageDraw.Draw(strip).text((0, 2), text, "black", font)
    return np.vstack([np.asarray(strip), picture])


def stack(pictures: list[np.ndarray]) -> np.ndarray:
    """Return pictures stacked vertically; narrow ones are padded with white."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, _GAP), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.vstack(padded)
