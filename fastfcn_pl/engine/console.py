"""Output and logs of this process, without secrets."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from fastfcn_pl.core.redaction import hide, remember_process


def hide_secrets() -> None:
    """Hide the secrets of the command line and the environment in what this process prints and logs from now on."""
    remember_process(sys.argv[1:], os.environ)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not hasattr(stream.write, "hides_secrets"):
            stream.write = _hiding(stream)  # type: ignore[method-assign]
    factory = logging.getLogRecordFactory()
    if not hasattr(factory, "hides_secrets"):
        record_of = _hiding_records(factory)
        logging.setLogRecordFactory(record_of)


def _hiding(stream: TextIO) -> Callable[[str], int]:
    write = stream.write

    def hiding(text: str) -> int:
        write(hide(text))
        return len(text)

    hiding.hides_secrets = True  # type: ignore[attr-defined]
    return hiding


def _hiding_records(factory: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def hiding(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        message = record.getMessage()
        if (shown := hide(message)) != message:
            record.msg, record.args = shown, None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = hide("".join(traceback.format_exception(*record.exc_info))).rstrip()
        return record

    hiding.hides_secrets = True  # type: ignore[attr-defined]
    return hiding
