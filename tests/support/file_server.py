"""A server of files for tests: it knows ranges, and can cut connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """Files of a server and its behaviour; `asked` are the headers `Range` that came, one for each request."""

    files: dict[str, bytes]
    url: str = ""
    etag: str | None = '"1"'
    cuts: list[int] = field(default_factory=list)
    """The next connections end after so many bytes."""
    knows_ranges: bool = True
    asked: list[str | None] = field(default_factory=list)
    status: int | None = None
    """Status of every answer, instead of 200 or 206."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of every answer, which replace its own."""
    pause: float | None = None
    """Seconds between the bytes of an answer's content; of its header, too, if `slow_header`."""
    slow_header: bool = False


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve a site on this machine meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content, asked = site.files.get(self.path.lstrip("/")), self.headers["Range"]
            site.asked.append(asked)
            if content is None:
                return self.send_error(404)
            start = 0
            if asked and site.knows_ranges and self.headers["If-Range"] == site.etag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return None
            self.send_response(site.status or (206 if start else 200))
            headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            headers |= ({"ETag": site.etag} if site.etag else {}) | {"Content-Length": str(len(content) - start)}
            for name, value in (headers | site.headers).items():
                self.send_header(name, value)
            if site.slow_header:
                self._drip(b"X-Slow: " + b"x" * 60)
                return None
            self.end_headers()
            content = content[start:][: site.cuts.pop(0) if site.cuts else None]
            if site.pause is None:
                self.wfile.write(content)
            else:
                self._drip(content)
            return None

        def _drip(self, content: bytes) -> None:
            self.flush_headers()
            with suppress(OSError):  # the other side has gone
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    if stopped.wait(site.pause):
                        return

        def log_message(self, *_: object) -> None:
            pass

    stopped = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
