"""A bar for what takes minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Update = Callable[[int, int | None], None]
"""Takes how much is done, and of how much; None where that is not known."""


@contextmanager
def bar(what: str, of_bytes: bool = True) -> Iterator[Update]:
    """Show `what` is being done; counts bytes, or else things."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn() if of_bytes else MofNCompleteColumn()
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
