"""Standard streams that survive a closed pipe or terminal: further output is dropped."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

_CLOSED = (errno.EPIPE, errno.EIO)
"""Errors of a pipe whose reader has closed it, and of a closed terminal."""


class _PipeFile(io.FileIO):
    """File that redirects its descriptor to `/dev/null` once the reader is gone."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _CLOSED:
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # redirects output of C libraries, too
            os.close(null)
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Keep this process printing without errors if its standard streams are closed, or will be."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # the next opened file would get the number of a closed descriptor, and receive the output
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.dup(descriptor), "w", encoding="utf-8")  # noqa: SIM115  # open until the process ends
        elif stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
            continue  # replaced, such as by a notebook
        with suppress(OSError):
            stream.flush()
        raw = io.BufferedWriter(_PipeFile(descriptor, "w", closefd=False))
        setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=stream.line_buffering))
