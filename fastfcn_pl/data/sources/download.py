"""Files over HTTP: a broken download goes on where it stopped, and only a whole, checked file gets its name."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from fastfcn_pl.contracts import UserError
from fastfcn_pl.data.sources.progress import Update, bar
from fastfcn_pl.staging import OF_THE_DISK, writing

BLOCK = 1 << 20
"""Bytes that are read at a time."""
PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses of a server that may answer better later."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """Gives up after `tries` in a row that bring nothing new; pauses `wait` seconds between them, then twice that, ...

    `timeout` is in seconds, of a server that says nothing.
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
        with writing(path), bar(path.name) as update:
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
        failures, most = 0, _size(part)
        while True:
            try:
                return self._go_on(url, part, version, update)
            except (OSError, HTTPException) as error:
                if isinstance(error, HTTPError) and error.code not in PASSING:
                    answer = f"{error.code} {error.reason}"
                    raise UserError(f"{url} answers {answer}: {_by_hand(part.with_suffix(''))}") from error
                if getattr(error, "errno", None) in OF_THE_DISK:
                    raise
                failures, most = 0 if _size(part) > most else failures + 1, max(most, _size(part))
                if failures == self.tries:
                    reason = " ".join(str(getattr(error, "reason", error)).split())
                    raise UserError(
                        f"{url} broke off {failures} times in a row, after {most} bytes ({reason}): "
                        f"run again to go on, or {_by_hand(part.with_suffix(''))}"
                    ) from error
                time.sleep(self.wait * 2 ** max(failures - 1, 0))

    def _go_on(self, url: str, part: Path, version: Path, update: Update) -> None:
        """Ask for what `part` lacks; the server sends all of it where its file has changed or it cannot begin there."""
        start, known = _size(part), version.read_text() if version.exists() else ""
        headers = {"User-Agent": "fastfcn_pl"}
        if start and known:
            headers |= {"Range": f"bytes={start}-", "If-Range": known}
        try:
            response = urlopen(Request(url, headers=headers), timeout=self.timeout)
        except HTTPError as error:
            if error.code != 416:
                raise
            if error.headers["Content-Range"] == f"bytes */{start}":
                return  # nothing was lacking
            part.unlink()
            raise ConnectionError("it has less than was fetched before") from error
        with response:
            goes_on = response.status == 206
            if goes_on and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                part.unlink()
                raise ConnectionError("it sent another part than was asked for")
            start = start if goes_on else 0
            length = response.headers["Content-Length"]
            total = None if length is None else start + int(length)
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab" if goes_on else "wb") as file:
                if not goes_on:
                    version.write_text(_version(response.headers))
                while block := response.read(BLOCK):
                    file.write(block)
                    update(file.tell(), total)
        if total is not None and _size(part) != total:
            raise ConnectionError(f"{_size(part)} of {total} bytes came")


def mismatch(path: Path, checksum: str | None) -> str | None:
    """Return how a file differs from its checksum, `<algorithm>:<digits>`, or None where it does not."""
    if checksum is None:
        return None
    algorithm, _, digits = checksum.partition(":")
    if algorithm not in hashlib.algorithms_guaranteed:
        raise UserError(f"checksum {checksum}: write <algorithm>:<digits>, such as sha256:..., or null")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    return None if found == digits.lower() else f"{algorithm} is {found}, not {digits}"


def _version(headers: Message) -> str:
    """Return what names this version of a file in `If-Range`, which takes no weak ETag."""
    tag = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _by_hand(path: Path) -> str:
    return f"take it from elsewhere with mirror=<address>, or put it there by hand as {path}"
