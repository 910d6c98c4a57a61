"""A Kubernetes API on this machine, as far as ``helm`` needs one: it keeps objects, runs nothing.

Objects are created, read, listed by label, replaced, patched and deleted; nothing is scheduled, and
patches of lists are merged by ``name``. The real thing validates; ``kubernetes_validate`` does that
in tests/deploy/test_chart_renders.py.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Object = dict[str, Any]
KINDS = {
    "v1": (
        *("Namespace", "Secret", "ConfigMap", "ServiceAccount", "Pod", "Service"),
        "PersistentVolumeClaim",
    ),
    "apps/v1": ("Deployment", "ReplicaSet"),
    "batch/v1": ("Job",),
    "policy/v1": ("PodDisruptionBudget",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "keda.sh/v1alpha1": ("ScaledObject", "TriggerAuthentication"),
    "monitoring.coreos.com/v1": ("PodMonitor", "PrometheusRule"),
}
_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))(?:/namespaces/(?P<space>[^/]+)(?=/[^/]))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?$"
)


def plural(kind: str) -> str:
    """The word of a kind in paths."""
    lower = kind.lower()
    return f"{lower[:-1]}ies" if lower.endswith("y") else f"{lower}s"


def root(version: str) -> str:
    """Where the resources of a version are."""
    return f"apis/{version}" if "/" in version else f"api/{version}"


def openapi(path: str) -> Object:
    """Just enough to say that the server validates fields, so that the client leaves it to it."""
    version = path.removeprefix("apis/").removeprefix("api/")
    group, _, name = version.rpartition("/")
    paths = {
        f"/{path}/{plural(kind)}/{{name}}": {
            "patch": {
                "parameters": [{"name": "fieldValidation", "in": "query"}],
                "x-kubernetes-group-version-kind": {"group": group, "version": name, "kind": kind},
                "responses": {},
            }
        }
        for kind in KINDS[version]
    }
    return {"openapi": "3.0.0", "info": {"title": "here", "version": "1"}, "paths": paths}


def merged(old: Any, new: Any) -> Any:
    """A patch over an object: maps key by key, lists of named things by name, null deletes."""
    if isinstance(old, dict) and isinstance(new, dict):
        result = dict(old)
        for key, value in new.items():
            if key.startswith("$"):
                continue
            if value is None:
                result.pop(key, None)
            else:
                result[key] = merged(result.get(key), value)
        return result
    if (
        isinstance(old, list)
        and isinstance(new, list)
        and all("name" in each for each in old + new)
    ):
        kept = {each["name"]: each for each in old}
        for each in new:
            if each.get("$patch") == "delete":
                kept.pop(each["name"], None)
            else:
                kept[each["name"]] = merged(kept.get(each["name"], {}), each)
        return list(kept.values())
    return new


class KubeApi:
    """The objects of a cluster, by path. ``kubeconfig`` leads helm and kubectl to it."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.address = ""
        self._version = 0

    def kubeconfig(self, file: Path) -> Path:
        """Write a kubeconfig that leads here."""
        cluster = {"name": "here", "cluster": {"server": self.address}}
        context = {"name": "here", "context": {"cluster": "here", "user": "here"}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "here"}
        users = [{"name": "here", "user": {"token": "x"}}]
        config |= {"clusters": [cluster], "contexts": [context], "users": users}  # type: ignore[dict-item]
        file.write_text(yaml.safe_dump(config))
        return file

    def of_kind(self, kind: str, namespace: str = "moderation") -> dict[str, Object]:
        """Objects of a kind in a namespace, by name."""
        middle = f"/namespaces/{namespace}/{plural(kind)}/"
        return {path.split("/")[-1]: each for path, each in self.objects.items() if middle in path}

    def discover(self, path: str) -> Object | None:
        """The documents by which clients find out what there is."""
        if path == "/version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = []
            for version in KINDS:
                if "/" in version:
                    found = {"groupVersion": version, "version": version.split("/")[1]}
                    name = version.split("/")[0]
                    groups.append({"name": name, "versions": [found], "preferredVersion": found})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        if path == "/openapi/v3":
            paths = {
                root(each): {"serverRelativeURL": f"/openapi/v3/{root(each)}"} for each in KINDS
            }
            return {"paths": paths}
        if path.startswith("/openapi/v3/"):
            return openapi(path.removeprefix("/openapi/v3/"))
        version = path.removeprefix("/apis/").removeprefix("/api/")
        if version not in KINDS:
            return None
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        resources = [
            {
                "name": plural(kind),
                "singularName": kind.lower(),
                "namespaced": kind != "Namespace",
                "kind": kind,
                "verbs": verbs,
            }
            for kind in KINDS[version]
        ]
        return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}

    def answer(self, method: str, url: str, body: Any) -> tuple[int, Object]:
        """Status and document."""
        parts = urlsplit(url)
        if method == "GET" and (found := self.discover(parts.path)) is not None:
            return 200, found
        matched = _PATH.match(parts.path)
        if matched is None:
            return failure(404, "NotFound", parts.path)
        path = parts.path
        if matched["name"] is None:
            if method == "POST":
                path = f"{path}/{body['metadata']['name']}"
                if path in self.objects:
                    return failure(409, "AlreadyExists", path)
                return 201, self._keep(path, body, matched["space"])
            return 200, self._listed(path, matched, parse_qs(parts.query))
        if path not in self.objects:
            return failure(404, "NotFound", path)
        if method == "GET":
            return 200, self.objects[path]
        if method == "DELETE":
            return 200, self.objects.pop(path)
        if method == "PATCH":
            body = merged(self.objects[path], body)
        return 200, self._keep(path, body, matched["space"])

    def _keep(self, path: str, body: Object, space: str | None) -> Object:
        self._version += 1
        metadata = body.setdefault("metadata", {})
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("uid", f"uid-{self._version}")
        if space:
            metadata["namespace"] = space
        self.objects[path] = body
        return body

    def _listed(self, path: str, matched: re.Match[str], query: dict[str, list[str]]) -> Object:
        version = matched["group"] or "v1"
        kind = next(each for each in KINDS[version] if plural(each) == matched["plural"])
        wanted = [
            term.split("=", 1) for term in query.get("labelSelector", [""])[0].split(",") if term
        ]
        items = [
            each
            for name, each in self.objects.items()
            if name.startswith(f"{path}/")
            and all(each["metadata"].get("labels", {}).get(key) == value for key, value in wanted)
        ]
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": items}


def fields(data: bytes) -> dict[int, list[bytes]]:
    """The length-delimited fields of a protobuf message, by number; numbers are skipped."""
    found: dict[int, list[bytes]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        size = number()
        if tag & 7 == 2:
            found.setdefault(tag >> 3, []).append(data[at : at + size])
            at += size
    return found


def secret(sent: bytes) -> Object:
    """A Secret, or what deletes one, as helm's client sends it: protobuf behind ``k8s`` and a zero
    (k8s.io/apimachinery, runtime.Unknown; k8s.io/api, core/v1)."""
    envelope = fields(sent[4:])
    if b"Secret" not in fields(envelope[1][0]).get(2, [b""])[0]:
        return {}
    raw = fields(envelope[2][0])
    metadata = fields(raw[1][0])
    labels = [fields(each) for each in metadata.get(11, [])]
    data = [fields(each) for each in raw.get(2, [])]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata[1][0].decode(),
            "labels": {each[1][0].decode(): each[2][0].decode() for each in labels},
        },
        "data": {each[1][0].decode(): base64.b64encode(each[2][0]).decode() for each in data},
        "type": raw[3][0].decode(),
    }


def failure(code: int, reason: str, path: str) -> tuple[int, Object]:
    """A ``Status`` as the API answers one."""
    name = path.rsplit("/", 1)[-1]
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    return code, {
        **status,
        "reason": reason,
        "message": f'"{name}": {reason}',
        "details": {"name": name},
    }


@contextmanager
def kube_api() -> Iterator[KubeApi]:
    """An empty cluster, until the end of the block."""
    api = KubeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(size)
            if "protobuf" in self.headers.get("Content-Type", ""):
                body = secret(sent)
            else:
                body = json.loads(sent) if sent else {}
            status, document = api.answer(self.command, self.path, body)
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def __getattr__(self, name: str) -> object:  # do_GET, do_POST, do_PUT, do_PATCH, do_DELETE
            if name.startswith("do_"):
                return self._respond
            raise AttributeError(name)

        def log_message(self, *_: object) -> None:
            """Keeps the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
