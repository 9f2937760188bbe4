"""HTTP downloads that resume after a failure and are renamed only when complete and verified."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request

from fastfcn_pl.core.atomic_io import DISK_ERRORS, disk_errors_reported
from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.prepare.http_request import answer
from fastfcn_pl.tools.progress_bar import Update, bar

BLOCK = 1 << 20
"""Bytes to read at a time."""
TEMPORARY_STATUSES = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses after which another try may succeed."""
MIN_SPEED = 1024
"""Bytes a second below which a connection counts as stalled."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """Downloader that gives up after `tries` consecutive failures without progress.

    It pauses `wait` seconds after a failure and doubles the pause each time. `timeout` is the time in seconds for
    which a server may be silent, or slower than `MIN_SPEED`.
    """

    tries: int
    wait: float
    timeout: float

    def __call__(self, url: str, path: Path, checksum: str | None) -> None:
        """Download `url` to `path`; a partial file stays in `<path>.part` for the next call.

        Raises UserError if the server is unreachable or has no such file, or if the disk is full. A file that does not
        match `checksum` (`<algorithm>:<digits>`) is removed and raises UserError, too.
        """
        if not url.startswith(("http://", "https://")):
            raise UserError(
                f"{url} does not start with http:// or https://: fix the address, or put the file at {path}"
            )
        part, version = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.version")
        for place in (path, part, version):
            check_file(place)
        with disk_errors_reported(path), bar(path.name) as update:
            self._retry(url, part, version, update)
            if difference := mismatch(part, checksum):
                part.unlink()
                raise UserError(f"{url} is not the expected file ({difference}) and was removed: {_by_hand(path)}")
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
            version.unlink(missing_ok=True)

    def _retry(self, url: str, part: Path, version: Path, update: Update) -> None:
        failures, received, target = 0, _size(part), part.with_suffix("")
        while True:
            start = time.monotonic()
            try:
                with _invalid_answers_reported(url, target):
                    return self._resume(url, part, version, update)
            except (OSError, HTTPException) as error:
                if isinstance(error, HTTPError) and error.code not in TEMPORARY_STATUSES:
                    reason = " ".join(f"{error.code} {error.reason}".split())
                    raise UserError(f"{url} answers {reason}: {_by_hand(target)}") from error
                if getattr(error, "errno", None) in DISK_ERRORS:
                    raise
                gained = _size(part) - received
                slow = gained < MIN_SPEED * (time.monotonic() - start)
                failures = failures + 1 if gained <= 0 or slow else 0
                received = max(received, _size(part))
                if failures == self.tries:
                    reason = " ".join(str(getattr(error, "reason", error)).split())
                    raise UserError(
                        f"{url} failed {failures} times in a row, after {received} bytes ({reason}): "
                        f"run again to resume, or {_by_hand(target)}"
                    ) from error
                time.sleep(self.wait * 2 ** max(failures - 1, 0))

    def _resume(self, url: str, part: Path, version: Path, update: Update) -> None:
        """Request the rest of `part`; the server sends the whole file if it has changed or cannot resume."""
        start, known = _size(part), _printable(version.read_text("latin-1")) if version.exists() else ""
        headers = {"User-Agent": "fastfcn_pl"}
        if start and known:
            headers |= {"Range": f"bytes={start}-", "If-Range": known}
        try:
            response = answer(Request(url, headers=headers), self.timeout)
        except HTTPError as error:
            if error.code != 416:
                raise
            if error.headers["Content-Range"] == f"bytes */{start}":
                return  # the file was complete
            part.unlink(missing_ok=True)
            raise ConnectionError("the file became shorter") from error
        with response:
            if response.headers.get_content_type() == "text/html" and part.with_suffix("").suffix not in (".html", ""):
                raise UserError(f"{url} sent a web page instead of the file: {_by_hand(part.with_suffix(''))}")
            resumed = response.status == 206
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                part.unlink(missing_ok=True)
                raise ConnectionError("the server sent another part than requested")
            start = start if resumed else 0
            length = _length(response)
            part.parent.mkdir(parents=True, exist_ok=True)
            if length is not None and length > (free := shutil.disk_usage(part.parent).free + _size(part) - start):
                raise UserError(
                    f"{url} needs {length:,} bytes, but the disk of {part.parent} has only {free:,} free: free some "
                    "space, or choose another folder with archives=<dir>"
                )
            with part.open("ab" if resumed else "wb") as file:
                if not resumed:
                    version.write_text(_version(response.headers), "latin-1")
                self._copy(response, file, None if length is None else start + length, update)
        if length is not None and _size(part) != start + length:
            raise ConnectionError(f"received {_size(part)} of {start + length} bytes")

    def _copy(self, response: HTTPResponse, file, total: int | None, update: Update) -> None:  # type: ignore[no-untyped-def]
        """Write what the server sends; raises TimeoutError if it is too slow for `timeout` seconds."""
        since, offset = time.monotonic(), file.tell()
        while block := response.read1(BLOCK):
            file.write(block)
            update(file.tell(), total)
            passed = time.monotonic() - since
            if passed > self.timeout:
                if file.tell() - offset < MIN_SPEED * passed:
                    raise TimeoutError(f"only {file.tell() - offset} bytes in {passed:.0f} seconds")
                since, offset = time.monotonic(), file.tell()


def mismatch(path: Path, checksum: str | None) -> str | None:
    """Return how a file differs from its checksum `<algorithm>:<digits>`; None if it matches."""
    if checksum is None:
        return None
    algorithm, _, digits = checksum.partition(":")
    if algorithm not in hashlib.algorithms_guaranteed or algorithm.startswith("shake"):  # has no fixed length
        raise UserError(f"checksum {checksum}: give <algorithm>:<digits>, such as sha256:..., or null")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).hexdigest()
    return None if digest == digits.lower() else f"{algorithm} is {digest}, not {digits}"


def check_file(path: Path) -> None:
    """Raise UserError if `path` exists but is not a file, such as a folder or a FIFO."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is not a file: remove it, or choose another folder with archives=<dir>")


@contextmanager
def _invalid_answers_reported(url: str, path: Path) -> Iterator[None]:
    """Raise UserError for an invalid address, also that of a redirect, or an invalid header."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{url} is invalid, or its server answers wrongly ({reason}): {_by_hand(path)}") from error


def _length(response: HTTPResponse) -> int | None:
    """Return the length of the body in bytes; None if the server does not state it."""
    length = response.headers["Content-Length"]
    if length is None or response.chunked:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", length.strip()):
        shown = length if len(length) < 30 else f"{length[:20]}..., of {len(length)} characters"
        raise ValueError(f"its Content-Length is {shown!a}")
    return int(length)


def _version(headers: Message) -> str:
    """Return the value for `If-Range` that identifies this version of the file; weak ETags are not allowed there."""
    tag = headers.get("ETag", "")
    return _printable(headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag)


def _printable(text: str) -> str:
    """Return `text` if it is valid in a header, else an empty string."""
    return text if text.isascii() and text.isprintable() else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _by_hand(path: Path) -> str:
    return f"use another server with mirror=<address>, or download it yourself to {path}"
