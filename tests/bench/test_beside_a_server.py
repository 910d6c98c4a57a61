"""``--against``: what a server on the same machine is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from moderation_tools.bench.engine.__main__ import main

Server = tuple[str, list[tuple[int, ...]]]


@pytest.fixture
def server() -> Iterator[Server]:
    """The address of an OpenAI-compatible server, and every prompt that it was sent."""
    prompts: list[tuple[int, ...]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"data": [{"id": "served"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompts.append(tuple(body["prompt"]))
            self._answer({"choices": [{"text": ""}]})

        def _answer(self, body: object) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", prompts
    running.shutdown()
    running.server_close()


def test_no_prompt_is_sent_twice_whatever_was_measured_before(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server keeps whole prompts: one it knows costs it next to nothing, and proves nothing."""
    url, prompts = server
    arguments = "--model tiny --events 2 --batch 2 --rounds 1 --threads 1 --device cpu"
    for _ in range(2):
        main([*arguments.split(), "--dtype", "float32", "--against", url])
    assert capsys.readouterr().out.count("| 1,000 tokens |") == 2
    assert len(set(prompts)) == len(prompts) > 0
