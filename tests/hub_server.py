"""A server on this machine that speaks the Hugging Face hub's protocol, as far as the tests need it.

Models are pushed and loaded, and the files of data sets are listed and read.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HubServer(ThreadingHTTPServer):
    """Knows one repository, `owner/name`, and one token."""

    daemon_threads = True
    token = "hf_token"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: list[dict[str, bytes]] = []
        """The files of each commit, by path."""
        self.visibility = ""
        """What was asked for when the repository was made."""
        self.is_gated = False
        """Whether its files need a licence that nobody has accepted."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def find(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit's name and its files; `main` is the newest."""
        names = [f"{number:040x}" for number in range(len(self.commits))]
        name = names[-1] if names and revision == "main" else revision
        return (name, self.commits[names.index(name)]) if name in names else None


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._answer({"error": "Invalid username or password."}, status=401)
        if self.path == "/api/repos/create":
            self.server.visibility = json.loads(body).get("visibility", "")
            return self._answer({"url": f"{self.server.url}/owner/name"})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.path == "/api/models/owner/name/preupload/main":
            answers = {"uploadMode": "regular", "shouldIgnore": False}
            return self._answer({"files": [{"path": file["path"], **answers} for file in json.loads(body)["files"]]})
        assert self.path == "/api/models/owner/name/commit/main"
        records = [json.loads(line) for line in body.splitlines()]
        files = [record["value"] for record in records if record["key"] == "file"]
        before = self.server.commits[-1] if self.server.commits else {}
        self.server.commits.append(before | {file["path"]: base64.b64decode(file["content"]) for file in files})
        commit = f"{len(self.server.commits) - 1:040x}"
        return self._answer({"commitOid": commit, "commitUrl": f"{self.server.url}/owner/name/commit/{commit}"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.server.is_gated:
            refusal = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model owner/name is restricted."}
            return self._answer({"error": refusal["X-Error-Message"]}, status=403, headers=refusal)
        path, _, query = self.path.partition("?")
        match path.strip("/").removeprefix("datasets/").replace("api/datasets/", "api/models/").split("/"):
            case ["owner", "name", "resolve", revision, *parts] if found := self.server.find(revision):
                (commit, files), path = found, "/".join(parts)
                if path not in files:
                    return self._answer({}, status=404, headers={"X-Error-Code": "EntryNotFound"})
                return self._send(200, files[path], {"ETag": f'"{_etag(files[path])}"', "X-Repo-Commit": commit})
            case ["api", "models", "owner", "name", "revision", revision] if found := self.server.find(revision):
                commit, files = found
                return self._answer({"id": "owner/name", "sha": commit, "siblings": [{"rfilename": p} for p in files]})
            case ["api", "models", "owner", "name"] if self.server.commits:
                return self._answer({"id": "owner/name"})
            case ["api", "models", "owner", "name", "tree", revision, *parts] if found := self.server.find(revision):
                _, files = found
                below = "".join(f"{part}/" for part in parts)
                inside = {p: p.removeprefix(below).partition("/")[0] for p in files if p.startswith(below)}
                if "recursive=false" in query:
                    folders = {below + name for p, name in inside.items() if below + name != p}
                    entries = [{"type": "directory", "path": p, "oid": ""} for p in sorted(folders)]
                    entries += [_entry(p, files[p]) for p, name in inside.items() if below + name == p]
                else:
                    entries = [_entry(p, files[p]) for p in inside]
                return self._answer(entries)
            case _:
                return self._answer({}, status=404, headers={"X-Error-Code": "RevisionNotFound"})

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": _etag(content)}


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """Run a hub while the block does."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
