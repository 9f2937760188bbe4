"""A W&B server on loopback, as far as the client of a run asks for one: GraphQL, the stream of a run's lines, uploads.

What it was sent is kept as a person would find it on the site: runs with their state, configuration, summary, history,
files and artifacts. It answers an operation by its name; what it does not know is kept in `unknown`.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

ENTITY = "somebody"


@dataclass
class StoredRun:
    """One run, as the server knows it."""

    name: str
    project: str
    begun: int = 0
    """Number of times that a client started it."""
    config: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    """Further properties that a client sent: its group, tags, ..."""
    lines: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Of the streams, such as `wandb-history.jsonl`."""
    exit_code: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def state(self) -> str:
        """The state that the site shows; a run whose client says nothing more becomes `crashed` after a while."""
        if self.exit_code is None:
            return "running"
        return "finished" if self.exit_code == 0 else "failed"

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines["wandb-history.jsonl"]]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.lines["wandb-summary.json"][-1])


class Server:
    """The state of the server, and its answers."""

    def __init__(self) -> None:
        self.url = ""
        self.runs: dict[str, StoredRun] = {}
        self.keys: set[str] = set()
        """With what clients logged in."""
        self.requests: list[str] = []
        """Every request with its body, without headers."""
        self.unknown: set[str] = set()
        self.projects = ["fastfcn_pl"]
        self.views: list[dict[str, Any]] = []
        """Saved views and reports, as they were sent."""
        self.lock = threading.Lock()

    def graphql(self, request: dict[str, Any]) -> dict[str, Any]:
        variables = request.get("variables") or {}
        found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
        name = request.get("operationName") or (found[1] if found else "?")
        answer = getattr(self, f"_{name}", None)
        if answer is None:
            self.unknown.add(name)
            return {}
        return answer(variables)

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        return {"viewer": {"id": "1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": teams}}

    def _RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(variables["name"])
        bucket = self._bucket(run) if run is not None else None
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": ENTITY}}
        return {"model": {**project, "bucket": bucket}}

    def _UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = variables["name"]
        new = name not in self.runs
        run = self.runs.setdefault(name, StoredRun(name, variables["project"]))
        if variables.get("host") is not None:  # what a client sends when it starts, and not when it changes something
            run.begun += 1
            run.exit_code = None
        run.config.update(json.loads(variables.get("config") or "{}"))
        run.fields.update({key: value for key, value in variables.items() if value is not None and key != "config"})
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": new}}

    def _bucket(self, run: StoredRun) -> dict[str, Any]:
        tails = {
            f"{stream}Tail": json.dumps(run.lines[f"wandb-{stream}.jsonl"][-1:]) for stream in ("history", "events")
        }
        counts = {
            f"{stream}LineCount": len(run.lines[f"wandb-{stream}.jsonl"]) for stream in ("history", "events", "log")
        }
        telemetry = run.config.get("_wandb", {}).get("value", {}).get("t", {})
        return {
            "id": f"id-{run.name}",
            "name": run.name,
            "displayName": "a name",
            "description": "",
            "notes": None,
            "sweepName": None,
            "tags": run.fields.get("tags") or [],
            "config": json.dumps(run.config),
            "wandbConfig": json.dumps({"t": telemetry}),  # without it a client resumes nothing
            "summaryMetrics": (run.lines["wandb-summary.json"] or ["{}"])[-1],
            "project": {"id": "p", "name": run.project, "entity": {"id": "e", "name": ENTITY}},
            **counts,
            **tails,
        }

    def _CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [
            {"name": name, "uploadUrl": f"{self.url}/upload/{variables['run']}/{name}"} for name in variables["files"]
        ]
        run_id = f"id-{variables['run']}"
        return {"createRunFiles": {"runID": run_id, "uploadHeaders": [], "files": files}}

    def _NotifyScriptableRunAlert(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.runs[variables["runName"]].alerts.append(variables)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def _ArtifactType(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"project": {"artifact": None}}

    def _CreateArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        given = variables["input"]
        kept = self.runs[given["runName"]].artifacts
        kept.append(given)
        made = {
            "id": f"{given['runName']}-{len(kept)}",
            "state": "PENDING",
            "artifactSequence": {"latestArtifact": None},
        }
        return {"createArtifact": {"artifact": made}}

    def _CreateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"createArtifactManifest": {"artifactManifest": self._manifest(variables["artifactID"])}}

    def _UpdateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(variables["artifactManifestID"])}}

    def _manifest(self, artifact: str) -> dict[str, Any]:
        place = f"artifacts/{artifact}/wandb_manifest.json"
        url = f"{self.url}/upload/{artifact.rpartition('-')[0]}/{place}"
        return {"id": artifact, "file": {"id": artifact, "uploadUrl": url, "uploadHeaders": []}}

    def _CreateArtifactFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        nodes = []
        for file in variables["input"]["artifactFiles"]:
            place = f"artifacts/{file['artifactID']}/{file['name']}"
            url = f"{self.url}/upload/{file['artifactID'].rpartition('-')[0]}/{place}"
            artifact = {"id": file["artifactID"]}
            node = {"storagePath": place, "uploadUrl": url, "uploadHeaders": [], "artifact": artifact}
            nodes.append({"node": {**node, "uploadMultipartUrls": None}})
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def _CommitArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name, _, number = variables["artifactID"].rpartition("-")
        self.runs[name].artifacts[int(number) - 1]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": ""}}}

    def _GetProjects(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        of_all = {"entityName": ENTITY, "createdAt": "2026-01-01T00:00:00Z", "isBenchmark": False, "user": None}
        nodes = [{"node": {"id": name, "name": name, **of_all}} for name in self.projects]
        return {"models": {"edges": nodes, "pageInfo": {"endCursor": None, "hasNextPage": False}}}

    def _UpsertView2(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.views.append(variables)
        place = {"id": "p", "name": variables["projectName"], "entityName": variables["entityName"]}
        view = {key: variables[key] for key in ("name", "displayName", "type", "description", "spec")}
        view |= {"id": f"view-{len(self.views)}", "project": place, "updatedAt": None}
        view["spec"] = json.loads(view["spec"])
        return {"upsertView": {"view": view, "inserted": True}}

    _upsertView = _UpsertView2  # noqa: N815

    def stream(self, name: str, body: dict[str, Any]) -> None:
        """Take lines of a run's streams, each from an offset on, and its end."""
        run = self.runs[name]
        for stream, part in body.get("files", {}).items():
            lines = run.lines[stream]
            del lines[part["offset"] :]
            lines.extend(part["content"])
        if body.get("complete"):
            run.exit_code = body["exitcode"]

    def upload(self, path: str, content: bytes) -> None:
        _, _, name, file = path.split("/", 3)
        self.runs[name].files[file] = content


@contextmanager
def wandb_server() -> Iterator[Server]:
    """Run a server on a free port of this machine."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, answer = unquote(urlparse(self.path).path), {}
            with server.lock:
                server.requests.append(f"{self.command} {path} {body.decode('utf-8', 'replace')}")
                server.keys.add(self.headers.get("Authorization") or "")
                if path == "/graphql":
                    answer = {"data": server.graphql(json.loads(body))}
                elif path.endswith("/file_stream"):
                    server.stream(path.split("/")[-2], json.loads(body))
                elif path.startswith("/upload/"):
                    server.upload(path, body)
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _answer  # noqa: N815

    class Quiet(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing of a client that is gone before it has its answer."""
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(request, client_address)

    http = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
