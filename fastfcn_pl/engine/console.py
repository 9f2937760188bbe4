"""Removal of secrets from the output and the logs of this process."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from fastfcn_pl.core.redaction import hide, remember_process


def hide_secrets() -> None:
    """Hide the secrets of the command line and the environment in everything this process prints and logs."""
    remember_process(sys.argv[1:], os.environ)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not hasattr(stream.write, "hides_secrets"):
            stream.write = _redacting_write(stream)  # type: ignore[method-assign]
    factory = logging.getLogRecordFactory()
    if not hasattr(factory, "hides_secrets"):
        redacting_factory = _redacting_factory(factory)
        logging.setLogRecordFactory(redacting_factory)


def _redacting_write(stream: TextIO) -> Callable[[str], int]:
    original_write = stream.write

    def write(text: str) -> int:
        original_write(hide(text))
        return len(text)

    write.hides_secrets = True  # type: ignore[attr-defined]
    return write


def _redacting_factory(factory: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        message = record.getMessage()
        if (redacted := hide(message)) != message:
            record.msg, record.args = redacted, None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = hide("".join(traceback.format_exception(*record.exc_info))).rstrip()
        return record

    make_record.hides_secrets = True  # type: ignore[attr-defined]
    return make_record
