"""Tables as Markdown, as CSV files and on a terminal."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastfcn_pl.core.atomic_io import atomic_write


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[bool] | None = None) -> str:
    """Return a Markdown table without a final newline.

    `numeric` columns are aligned to the right: by default all but the first.
    """
    right = [False, *[True] * (len(header) - 1)] if numeric is None else numeric
    rule = ["---:" if number else "---" for number in right]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in (header, *rows))
    lines = [next(escaped), rule, *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically; None is an empty cell."""
    with atomic_write(path) as hidden, hidden.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table to the terminal."""
    from rich.console import Console  # 0.2 s, which the start of a command need not wait for
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(Text, row))  # as it is: [red] in a name is no markup
    Console().print(table)
