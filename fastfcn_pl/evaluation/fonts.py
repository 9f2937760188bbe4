"""Fonts for names in any script: Pillow's own, matplotlib's, or one of the system that has the glyphs."""

from __future__ import annotations

import functools

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def drawable(text: str, instead: str, size: int) -> tuple[str, Font]:
    """Return `text` and a font that has its glyphs; if there is none, the text `instead` in the default font."""
    default = _default(size)
    if _has_glyphs(default, text):
        return text, default
    path = font_file(text)
    return (instead, default) if path is None else (text, ImageFont.truetype(path, size))


@functools.lru_cache(maxsize=1024)
def font_file(text: str) -> str | None:
    """Return the first font file that has all glyphs of `text`, or None."""
    wanted = {ord(character) for character in text if not character.isspace()}
    return next((path for path in _font_files() if wanted <= _characters(path)), None)


@functools.cache
def _default(size: int) -> Font:
    return ImageFont.load_default(size)


def _has_glyphs(font: Font, text: str) -> bool:
    """Tell whether a font draws each character of `text` unlike one that it does not have."""
    missing = bytes(font.getmask("\uffff"))
    return all(character.isspace() or bytes(font.getmask(character)) != missing for character in set(text))


@functools.cache
def _font_files() -> list[str]:
    """Return the files of matplotlib's default font and of the system's fonts."""
    from matplotlib import font_manager

    return [font_manager.findfont("DejaVu Sans"), *sorted(font_manager.findSystemFonts())]


@functools.cache
def _characters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a damaged file, or a format without outlines
        return frozenset()
