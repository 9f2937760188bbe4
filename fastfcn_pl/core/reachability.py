"""Quick answer to whether a server can be reached, before a client library tries for minutes."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import cache

PATIENCE = 4.0
"""Seconds in which a server has to answer."""


class Attempt:
    """`ask` in a thread of its own: `failure()` is why it failed, None if it did not; no answer in time is a failure.

    A lookup of a name has no timeout of its own, so the thread is left behind if it takes too long.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._failure: str | None = f"no answer in {PATIENCE:g} s"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._ask()
        except Exception as error:  # clients raise errors of many libraries
            reason = " ".join(str(error).split()).partition(" For more information")[0]
            self._failure = reason[:200] or type(error).__name__
        else:
            self._failure = None

    def failure(self) -> str | None:
        self._thread.join(PATIENCE)
        return self._failure


@cache
def attempt(address: str) -> Attempt:
    """Return the attempt to reach the server of `address`, once a process; proxies of the environment are used."""
    return Attempt(lambda: _ask(address))


def _ask(address: str) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:  # an answer
        return
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # clients may know other certificates
            raise OSError(error.reason) from error
