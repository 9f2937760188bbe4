"""Quick check that a server answers, before a client library retries for minutes."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import cache

TIMEOUT = 4.0
"""Seconds that a server has to answer."""


class ConnectionCheck:
    """Run `request` in a background thread; `failure()` waits for it and returns its error.

    DNS lookups have no timeout of their own, so a thread that takes too long is abandoned.
    """

    def __init__(self, request: Callable[[], None]) -> None:
        self._request = request
        self._failure: str | None = f"no answer in {TIMEOUT:g} s"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._request()
        except Exception as error:  # client libraries raise many types
            reason = " ".join(str(error).split()).partition(" For more information")[0]
            self._failure = reason[:200] or type(error).__name__
        else:
            self._failure = None

    def failure(self) -> str | None:
        """Return why the request failed or timed out; None if it succeeded."""
        self._thread.join(TIMEOUT)
        return self._failure


@cache
def check_server(address: str) -> ConnectionCheck:
    """Return the connection check of `address`, started once a process; uses the environment's proxies."""
    return ConnectionCheck(lambda: _send_head_request(address))


def _send_head_request(address: str) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError:  # the server answered
        return
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # the client library may trust other certificates
            raise OSError(error.reason) from error
