"""Files over HTTP: a broken download goes on where it stopped, and only a whole, checked file gets its name."""

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
"""Bytes that are read at a time."""
PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses of a server that may answer better later."""
SLOWEST = 1024
"""Bytes a second: a server that sends fewer of them brings nothing new."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """Gives up after `tries` in a row that bring nothing new; pauses `wait` seconds between them, then twice that, ...

    `timeout` is in seconds, of a server that says nothing, or sends fewer than `SLOWEST` bytes a second for so long.
    """

    tries: int
    wait: float
    timeout: float

    def __call__(self, url: str, path: Path, checksum: str | None) -> None:
        """Fetch `url` to `path`; what has come so far stays in `<path>.part` for the next call.

        Raises UserError where the server has no such file, where it cannot be reached, where the disk is full, or where
        what came is not what `checksum` (`<algorithm>:<digits>`) says: that is then removed.
        """
        if not url.startswith(("http://", "https://")):
            raise UserError(f"{url} is no address that starts with http:// or https://: give one, or put {path} there")
        part, version = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.version")
        for place in (path, part, version):
            check_file(place)
        with disk_errors_reported(path), bar(path.name) as update:
            self._until_whole(url, part, version, update)
            if found := mismatch(part, checksum):
                part.unlink()
                raise UserError(
                    f"{url} is not the file that was expected ({found}), so it was removed: {_by_hand(path)}"
                )
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
            version.unlink(missing_ok=True)

    def _until_whole(self, url: str, part: Path, version: Path, update: Update) -> None:
        failures, most, target = 0, _size(part), part.with_suffix("")
        while True:
            begun = time.monotonic()
            try:
                with _sensible(url, target):
                    return self._go_on(url, part, version, update)
            except (OSError, HTTPException) as error:
                if isinstance(error, HTTPError) and error.code not in PASSING:
                    reason = " ".join(f"{error.code} {error.reason}".split())
                    raise UserError(f"{url} answers {reason}: {_by_hand(target)}") from error
                if getattr(error, "errno", None) in DISK_ERRORS:
                    raise
                gained = _size(part) - most
                slow = gained < SLOWEST * (time.monotonic() - begun)
                failures, most = failures + 1 if gained <= 0 or slow else 0, max(most, _size(part))
                if failures == self.tries:
                    reason = " ".join(str(getattr(error, "reason", error)).split())
                    raise UserError(
                        f"{url} broke off {failures} times in a row, after {most} bytes ({reason}): "
                        f"run again to go on, or {_by_hand(target)}"
                    ) from error
                time.sleep(self.wait * 2 ** max(failures - 1, 0))

    def _go_on(self, url: str, part: Path, version: Path, update: Update) -> None:
        """Ask for what `part` lacks; the server sends all of it where its file has changed or it cannot begin there."""
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
                return  # nothing was lacking
            part.unlink(missing_ok=True)
            raise ConnectionError("it has less than was fetched before") from error
        with response:
            if response.headers.get_content_type() == "text/html" and part.with_suffix("").suffix not in (".html", ""):
                raise UserError(f"{url} answers with a web page instead of the file: {_by_hand(part.with_suffix(''))}")
            goes_on = response.status == 206
            if goes_on and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                part.unlink(missing_ok=True)
                raise ConnectionError("it sent another part than was asked for")
            start = start if goes_on else 0
            length = _length(response)
            part.parent.mkdir(parents=True, exist_ok=True)
            if length is not None and length > (free := shutil.disk_usage(part.parent).free + _size(part) - start):
                raise UserError(
                    f"{url} has {length:,} bytes to fetch, but the disk of {part.parent} has room for {free:,}: make "
                    "room there, or name another folder with archives=<dir>"
                )
            with part.open("ab" if goes_on else "wb") as file:
                if not goes_on:
                    version.write_text(_version(response.headers), "latin-1")
                self._copy(response, file, None if length is None else start + length, update)
        if length is not None and _size(part) != start + length:
            raise ConnectionError(f"{_size(part)} of {start + length} bytes came")

    def _copy(self, response: HTTPResponse, file, total: int | None, update: Update) -> None:  # type: ignore[no-untyped-def]
        """Write what the server sends; raises TimeoutError where that is too little for `timeout` seconds."""
        since, before = time.monotonic(), file.tell()
        while block := response.read1(BLOCK):
            file.write(block)
            update(file.tell(), total)
            passed = time.monotonic() - since
            if passed > self.timeout:
                if file.tell() - before < SLOWEST * passed:
                    raise TimeoutError(f"only {file.tell() - before} bytes came in {passed:.0f} seconds")
                since, before = time.monotonic(), file.tell()


def mismatch(path: Path, checksum: str | None) -> str | None:
    """Return how a file differs from its checksum, `<algorithm>:<digits>`, or None where it does not."""
    if checksum is None:
        return None
    algorithm, _, digits = checksum.partition(":")
    if algorithm not in hashlib.algorithms_guaranteed or algorithm.startswith("shake"):  # of any length
        raise UserError(f"checksum {checksum}: write <algorithm>:<digits>, such as sha256:..., or null")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    return None if found == digits.lower() else f"{algorithm} is {found}, not {digits}"


def check_file(path: Path) -> None:
    """Raise UserError where something else than a file is in the place of one, such as a folder or a pipe."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is not a file: remove it, or name another folder with archives=<dir>")


@contextmanager
def _sensible(url: str, path: Path) -> Iterator[None]:
    """Raise UserError for an address, also one that a server leads to, or a header that means nothing."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{url} cannot be asked for, or answers nonsense ({reason}): {_by_hand(path)}") from error


def _length(response: HTTPResponse) -> int | None:
    """Return how many bytes follow; None where the server does not say it."""
    length = response.headers["Content-Length"]
    if length is None or response.chunked:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", length.strip()):
        shown = length if len(length) < 30 else f"{length[:20]}..., of {len(length)} characters"
        raise ValueError(f"its Content-Length is {shown!a}")
    return int(length)


def _version(headers: Message) -> str:
    """Return what names this version of a file in `If-Range`, which takes no weak ETag."""
    tag = headers.get("ETag", "")
    return _printable(headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag)


def _printable(text: str) -> str:
    """Return `text` where it can stand in a header, else nothing."""
    return text if text.isascii() and text.isprintable() else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _by_hand(path: Path) -> str:
    return f"take it from elsewhere with mirror=<address>, or put it there by hand as {path}"
