"""A model hub on this machine: enough of the Hugging Face API for a download, also by a proxy."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FakeHub:
    """One repository at one commit. ``asked`` keeps method, path and host of every request."""

    def __init__(self, repository: str, revision: str, files: Mapping[str, bytes]) -> None:
        self.repository, self.revision, self.files = repository, revision, files
        self.token: str | None = None
        self.asked: list[tuple[str, str, str]] = []
        self.address = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a path."""
        name = f"/{self.repository}/resolve/{self.revision}/"
        if path.startswith(f"/api/models/{self.repository}/revision/{self.revision}"):
            siblings = [{"rfilename": each} for each in self.files]
            body = {"id": self.repository, "sha": self.revision, "siblings": siblings}
            return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()
        if path.startswith(f"/api/models/{self.repository}/tree/{self.revision}"):
            tree = [
                {"type": "file", "path": each, "size": len(data), "oid": self.etag(data)}
                for each, data in self.files.items()
            ]
            return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
        if path.startswith(name) and (data := self.files.get(path.removeprefix(name))) is not None:
            headers = {
                "ETag": f'"{self.etag(data)}"',
                "X-Repo-Commit": self.revision,
                "Content-Type": "application/octet-stream",
            }
            return 200, headers, data
        return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"

    @staticmethod
    def etag(data: bytes) -> str:
        """What the hub calls the content of a file."""
        return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@contextmanager
def fake_hub(repository: str, revision: str, files: Mapping[str, bytes]) -> Iterator[FakeHub]:
    """A hub that serves until the end of the block, under ``http://127.0.0.1:PORT``."""
    hub = FakeHub(repository, revision, files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._respond(whole=True)

        def do_HEAD(self) -> None:
            self._respond(whole=False)

        def _respond(self, *, whole: bool) -> None:
            parts = urlsplit(self.path)  # absolute where the client goes through a proxy
            hub.asked.append((self.command, parts.path, parts.netloc))
            status, headers, body = hub.answer(parts.path)
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                status, headers, body = 401, {"X-Error-Code": "GatedRepo"}, b"{}"
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if whole:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keeps the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
