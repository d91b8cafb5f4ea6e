"""A server on loopback with the part of the Hugging Face hub's interface that models need."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories by name, each with files by name; `requests`: method and path of each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self._path()
        if path.startswith("/api/models/"):
            repo = path.removeprefix("/api/models/").partition("/revision/")[0]
            repo, _, tree = repo.partition("/tree/")
            if repo not in self.server.files:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif tree:
                self._json([_entry(name, c) for name, c in self.server.files[repo].items()])
            else:
                names = [{"rfilename": name} for name in self.server.files[repo]]
                commit = self._commit(repo)
                self._json({"id": repo, "modelId": repo, "sha": commit, "siblings": names})
            return
        self._file(path)

    def do_HEAD(self) -> None:
        self._file(self._path())

    def do_POST(self) -> None:
        path, body = self._path(), self.rfile.read(int(self.headers["Content-Length"] or 0))
        if path == "/api/repos/create":
            values = json.loads(body)
            repo = f"{values['organization']}/{values['name']}"
            self.server.files.setdefault(repo, {})
            is_private = values.get("private") or values.get("visibility") == "private"
            self.server.private[repo] = bool(is_private)
            self._json({"url": f"{self.server.url}/{repo}"})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            regular = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self._json({"files": [{"path": name, **regular} for name in names]})
        elif "/commit/" in path:
            repo = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[repo][line["value"]["path"]] = content
                elif line["key"] == "deletedFile":
                    del self.server.files[repo][line["value"]["path"]]
            commit = self._commit(repo)
            url = f"{self.server.url}/{repo}/commit/{commit}"
            self._json({"success": True, "commitOid": commit, "commitUrl": url})
        else:
            self._json({})

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        return path

    def _commit(self, repo: str) -> str:
        return hashlib.sha1(repr(sorted(self.server.files[repo].items())).encode()).hexdigest()

    def _file(self, path: str) -> None:
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        content = self.server.files.get(repo, {}).get(rest.partition("/")[2])
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": self._commit(repo), "ETag": f'"{_oid(content)}"'}
        self._send(200, content, headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
