"""Tables of measurements, and the file that they are kept in: a section for each benchmark, none typed by hand."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from tests.benchmarks.measure import processor


def report(file: Path | str | None, title: str, command: str, text: str) -> None:
    """Print `text`, and put it into the section `title` of `file`, if one is named, in place of what it held."""
    print(text, flush=True)
    if file is None:
        return
    file = Path(file)
    section = f"## {title}\n\n`{command}`, {processor()}, torch {torch.__version__}\n\n{text}\n"
    before = file.read_text() if file.exists() else "# Speed\n"
    kept = re.sub(rf"## {re.escape(title)}\n.*?(?=^## |\Z)", "", before, flags=re.DOTALL | re.MULTILINE)
    file.write_text(f"{kept.rstrip()}\n\n{section}")
