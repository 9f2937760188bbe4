"""Asking an HTTP server, without waiting for ever and without being led elsewhere."""

from __future__ import annotations

import threading
from email.message import Message
from http.client import HTTPResponse
from typing import IO
from urllib.error import HTTPError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)


def answer(request: Request, timeout: float) -> HTTPResponse:
    """Return the answer when its header is whole; raises TimeoutError if that takes more than `timeout` seconds.

    The timeout of a socket starts anew with each byte, so that a server which drips them would never be given up.
    """
    answers: list[HTTPResponse | BaseException] = []

    def ask() -> None:
        try:
            answers.append(_opener().open(request, timeout=timeout))
        except BaseException as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)  # a server that never answers does not keep the process alive
    thread.start()
    thread.join(timeout + 1)  # the socket's own timeout comes first
    if not answers:
        raise TimeoutError("its answer takes too long")
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


class _Redirect(HTTPRedirectHandler):
    """Redirects to other servers, but not to other protocols: urllib would go on by FTP."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        if not newurl.lower().startswith(("http://", "https://")):
            raise HTTPError(newurl, code, f"{msg}, to {newurl}, which is refused", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _opener() -> OpenerDirector:
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        _Redirect(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
        UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
