"""Output that nobody reads any more is dropped, and the command goes on."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

_GONE = (errno.EPIPE, errno.EIO)
"""Errors of a pipe that its reader has closed, and of a terminal that was closed."""


class _Raw(io.FileIO):
    """The file of a descriptor, which becomes `/dev/null` if its reader goes."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # of what is not Python's, too
            os.close(null)
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Let this process print, whatever becomes of its standard output and error: closed ones, and ones that will be."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file to be opened would take its number, and what is printed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.dup(descriptor), "w", encoding="utf-8")  # noqa: SIM115  # to the end of the process
        elif stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
            continue  # somebody else's, such as a notebook's
        with suppress(OSError):
            stream.flush()
        raw = io.BufferedWriter(_Raw(descriptor, "w", closefd=False))
        setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=stream.line_buffering))
