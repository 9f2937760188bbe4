"""How a score is said: of what, and in percent."""

from __future__ import annotations

from typing import Any


def subject(results: dict[str, Any]) -> str:
    """Return what was scored; of PASCAL Context also by how many classes, since papers use 59 and 60."""
    classes = f", {len(results['IoU'])} classes" if results["data"] == "pascal_context" else ""
    return f"{results['data']} {results['split']}{classes}"


def percent(fraction: float | None) -> str:
    """Return a fraction as a number of percent with two digits behind the point, and `-` for one that is not there."""
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def over(results: dict[str, Any]) -> str:
    """Return `, over 1 of 2 classes` if classes without a pixel are left out of the means, else nothing."""
    classes, absent = len(results["IoU"]), len(results.get("absent_classes") or ())
    return f", over {classes - absent} of {classes} classes" if absent else ""
