"""A server of files for tests: it knows ranges, and can cut connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What a server has and how it behaves; `asked` are the headers `Range` that came, one for each request."""

    files: dict[str, bytes]
    url: str = ""
    etag: str | None = '"1"'
    cuts: list[int] = field(default_factory=list)
    """The next connections end after so many bytes."""
    knows_ranges: bool = True
    asked: list[str | None] = field(default_factory=list)


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
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if site.etag:
                self.send_header("ETag", site.etag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:][: site.cuts.pop(0) if site.cuts else None])
            return None

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
