"""A small S3 server that misbehaves on demand, over real sockets."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote, urlsplit

Fault = Literal[
    "500",
    "slow_down",
    "reset",
    "truncated",
    "drip",
    "silent",
    "garbage",
    "longer_than_announced",
    "no_length",
    "access_denied",
    "archived",
    "bad_credentials",
    "no_bucket",
    "kms",
    "delete_marker",
]

_REFUSALS: dict[str, tuple[int, str]] = {
    "500": (500, "InternalError"),
    "slow_down": (503, "SlowDown"),
    "access_denied": (403, "AccessDenied"),
    "archived": (403, "InvalidObjectState"),
    "bad_credentials": (403, "InvalidAccessKeyId"),
    "no_bucket": (404, "NoSuchBucket"),
    "kms": (400, "KMS.DisabledException"),
    "delete_marker": (405, "MethodNotAllowed"),
    "missing": (404, "NoSuchKey"),
}


class FaultyS3:
    """``objects`` by ``bucket/key``, ``encodings`` the Content-Encoding that some are stored with;
    ``fault`` for every request, ``faults`` for single objects.

    ``stop`` and ``start`` keep the port: a store that goes away and comes back.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.encodings: dict[str, str] = {}
        self.fault: Fault | None = None
        self.faults: dict[str, Fault] = {}
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self._port = 0
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self.over.clear()
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.faulty = self
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self.over.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.drop_connections()
            self._server.server_close()
            self._thread.join()
        self._server = self._thread = None


@contextmanager
def faulty_s3() -> Iterator[FaultyS3]:
    """A server that runs until the block ends."""
    faulty = FaultyS3()
    faulty.start()
    try:
        yield faulty
    finally:
        faulty.stop()


class _Server(ThreadingHTTPServer):
    faulty: FaultyS3
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._open: set[socket.socket] = set()

    def process_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what these tests provoke."""

    def drop_connections(self) -> None:
        for connection in list(self._open):
            _reset(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        faulty = self.server.faulty
        name = unquote(urlsplit(self.path).path).lstrip("/")
        with faulty.lock:
            faulty.requests[name] += 1
        fault = faulty.faults.get(name) or faulty.fault
        data = faulty.objects.get(name)
        if fault is None and data is None:
            self._refuse("missing")
        elif fault is not None and fault in _REFUSALS:
            self._refuse(fault)
        else:
            self._misbehave(fault, data or b"x" * 100, faulty.encodings.get(name))

    def _misbehave(self, fault: Fault | None, data: bytes, encoding: str | None) -> None:
        if fault == "reset":
            self._hang_up()
        elif fault == "silent":
            self.server.faulty.over.wait(60)
            self._hang_up()
        elif fault == "garbage":
            self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            self._hang_up()
        elif fault == "no_length":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = True
        else:
            announced = len(data) - 10 if fault == "longer_than_announced" else len(data)
            self.send_response(200)
            self.send_header("Content-Length", str(announced))
            if encoding is not None:
                self.send_header("Content-Encoding", encoding)
            self.end_headers()
            self._body(fault, data)

    def _body(self, fault: Fault | None, data: bytes) -> None:
        if fault == "truncated":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self._hang_up()
        elif fault == "drip":
            for byte in data:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.server.faulty.over.wait(0.02):
                    break
        else:
            self.wfile.write(data)

    def _refuse(self, fault: str) -> None:
        status, code = _REFUSALS[fault]
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
            "<Message>on demand</Message></Error>"
        ).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        _reset(self.connection)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


def _reset(connection: socket.socket) -> None:
    try:
        # With a linger time of zero, closing sends RST instead of FIN.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
