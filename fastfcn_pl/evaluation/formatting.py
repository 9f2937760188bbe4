"""Formatting of scores for messages and tables."""

from __future__ import annotations

import math
from typing import Any


def data_and_split(results: dict[str, Any]) -> str:
    """Return the scored data set and split; for PASCAL Context also the classes, since papers use 59 and 60."""
    classes = f", {len(results['IoU'])} classes" if results["data"] == "pascal_context" else ""
    return f"{results['data']} {results['split']}{classes}"


def percent(fraction: float | None) -> str:
    """Return a fraction as a percentage with two decimals; `-` for None."""
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def significant(value: float, digits: int = 3) -> str:
    """Return a number with at least this many significant digits, never in powers of ten: 1120 or 0.0123."""
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def part_of_split(scored: int, images: int) -> str:
    """Return `3 of 101 images` if a score leaves out images of its split, else an empty string."""
    return f"{scored} of {images} images" if scored < images else ""


def averaged_classes(results: dict[str, Any]) -> str:
    """Return `, over 1 of 2 classes` if the means leave out classes without pixels, else an empty string."""
    classes, absent = len(results["IoU"]), len(results.get("absent_classes") or ())
    return f", over {classes - absent} of {classes} classes" if absent else ""
