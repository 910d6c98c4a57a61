"""An OpenTelemetry collector in this process: OTLP over HTTP in, spans and metrics to look at."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


def is_named(name: str, wanted: str) -> bool:
    """Whether a span's name is ``wanted``, one of ``names.Span``: any destination will do."""
    start, _, what = wanted.partition("{")
    return name == wanted if not what else f"{name} ".startswith(start)


class Collector:
    """What arrived so far. ``raw`` is every request body, decompressed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.raw: list[bytes] = []
        self._spans: list[Span] = []
        self._metrics: list[Metric] = []
        self.resources: list[dict[str, str]] = []
        self.endpoint = ""

    def receive(self, path: str, body: bytes) -> bytes:
        with self._lock:
            self.raw.append(body)
            if path == "/v1/traces":
                traces = ExportTraceServiceRequest.FromString(body)
                for each in traces.resource_spans:
                    pairs = each.resource.attributes
                    self.resources.append({pair.key: pair.value.string_value for pair in pairs})
                    for scope in each.scope_spans:
                        self._spans.extend(scope.spans)
                return bytes(ExportTraceServiceResponse().SerializeToString())
            metrics = ExportMetricsServiceRequest.FromString(body)
            for resource in metrics.resource_metrics:
                for measured in resource.scope_metrics:
                    self._metrics.extend(measured.metrics)
            return bytes(ExportMetricsServiceResponse().SerializeToString())

    def spans(self, name: str | None = None) -> list[Span]:
        """All spans, or those of one name; a name that ends in a destination takes any."""
        with self._lock:
            return [span for span in self._spans if name is None or is_named(span.name, name)]

    def metrics(self) -> list[Metric]:
        with self._lock:
            return list(self._metrics)


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a free port of this machine; ``endpoint`` is its base URL."""
    received = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            answer = received.receive(self.path, body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    received.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
