"""HTTP requests with a total timeout and without redirects to other protocols."""

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
    """Return the response once its header is complete; raises TimeoutError after `timeout` seconds.

    A socket's own timeout restarts with every byte, so a server that sends single bytes would never time out.
    """
    answers: list[HTTPResponse | BaseException] = []

    def ask() -> None:
        try:
            answers.append(_opener().open(request, timeout=timeout))
        except BaseException as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)  # a silent server must not keep the process alive
    thread.start()
    thread.join(timeout + 1)  # the socket's own timeout should come first
    if not answers:
        raise TimeoutError("no complete answer in time")
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


class _Redirect(HTTPRedirectHandler):
    """Redirect handler that refuses other protocols; urllib would follow to FTP."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        if not newurl.lower().startswith(("http://", "https://")):
            raise HTTPError(newurl, code, f"{msg}, to {newurl}, which is not allowed", headers, fp)
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
