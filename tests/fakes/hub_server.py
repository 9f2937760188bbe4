"""A Hugging Face Hub on loopback, as far as its client asks to publish a model and to download files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock
from urllib.parse import unquote

from huggingface_hub import constants

from fastfcn_pl.core import reachability

TOKEN = "hf_token_of_somebody"
OWNER = "somebody"


@dataclass
class Hub:
    """Repositories by name, each a list of commits, which are files by name."""

    url: str = ""
    repositories: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    """Writing requests that it has no answer for."""

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """Add a commit that changes `files`, and return its id."""
        commits = self.repositories.setdefault(repository, [])
        commits.append({**(commits[-1] if commits else {}), **files})
        return self._id(len(commits) - 1)

    def files(self, repository: str) -> dict[str, bytes]:
        """Return the files of the latest commit."""
        return self.repositories[repository][-1]

    @staticmethod
    def _id(number: int) -> str:
        return f"{number:040x}"

    def resolve(self, repository: str, revision: str, name: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and content of a file."""
        commits = self.repositories.get(repository)
        if commits is None:
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
        ids = {"main": len(commits) - 1, **{self._id(i): i for i in range(len(commits))}}
        if revision not in ids:
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b""
        commit = {"X-Repo-Commit": self._id(ids[revision])}
        content = commits[ids[revision]].get(name)
        if content is None:
            return 404, {**commit, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}, b""
        return 200, {**commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}, content

    def post(self, path: str, body: bytes) -> dict[str, Any] | None:
        """Answer a writing request of somebody who is logged in; None if it is unknown."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked['organization']}/{asked['name']}"
            self.repositories.setdefault(repository, [])
            return {"url": f"{self.url}/{repository}"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", path):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            return {"files": [{"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes.items()]}
        if path.endswith(".git/info/lfs/objects/batch"):
            return {"objects": [self._to_upload(item) for item in json.loads(body)["objects"]]}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            files = dict(map(self._committed, (json.loads(line) for line in body.splitlines()[1:])))
            oid = self.commit(match[1], files)
            return {"commitUrl": f"{self.url}/{match[1]}/commit/{oid}", "commitOid": oid}
        return None

    def _to_upload(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}}

    def _committed(self, line: dict[str, Any]) -> tuple[str, bytes]:
        value = line["value"]
        content = self.uploads[value["oid"]] if line["key"] == "lfsFile" else base64.b64decode(value["content"])
        return value["path"], content


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Run a hub on a free port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            if match is None:
                return self._send(200 if path == "/" else 404, {}, b"")
            return self._send(*hub.resolve(*match.groups()))

        do_HEAD = do_GET  # noqa: N815

        def do_POST(self) -> None:
            path, body = unquote(self.path.partition("?")[0]), self._body()
            login, owner = self.headers["Authorization"], json.loads(body or b"{}") if "create" in path else {}
            if path != "/api/validate-yaml" and login != f"Bearer {TOKEN}":
                return self._send(401, {}, b'{"error": "Invalid username or password."}')
            if owner.get("organization") not in (None, OWNER):
                return self._send(403, {}, b'{"error": "You have no rights to create a model there"}')
            answer = hub.post(path, body)
            if answer is None:
                hub.unknown.append(f"POST {path}")
                return self._send(404, {}, b"{}")
            return self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

        def do_PUT(self) -> None:
            content = self._body()
            assert self.path == f"/lfs/{hashlib.sha256(content).hexdigest()}"
            hub.uploads[self.path.removeprefix("/lfs/")] = content
            self._send(200, {}, b"")

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def client_of(url: str, cache: str, token: str | None = TOKEN) -> Iterator[None]:
    """Let the hub's client, which reads the environment when it is imported, ask the server at `url` meanwhile."""
    environment = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "", "HF_TOKEN": token or ""}
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    values = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": cache,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }
    reachability.check_server.cache_clear()
    with mock.patch.dict("os.environ", environment), mock.patch.multiple(constants, **values):
        yield
    reachability.check_server.cache_clear()
