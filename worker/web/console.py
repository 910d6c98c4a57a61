"""The console: one page and the JSON it polls, both made from one view."""

from __future__ import annotations

import json

import msgspec

from worker.web import sections
from worker.web.console_assets import HEADERS, SCRIPT, STYLE
from worker.web.html import Markup, join, tag
from worker.web.sections import ConsoleView

_SECTIONS = {
    "status": sections.status,
    "notices": sections.notices,
    "tiles": sections.tiles,
    "partitions": sections.partitions,
    "policies": sections.policies,
    "verdicts": sections.verdicts,
    "quarantine": sections.quarantine,
}


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to a GET."""

    body: bytes
    content_type: str
    headers: dict[str, str]
    status: int = 200


def console_page(view: ConsoleView) -> Page:
    """The whole page, complete without its script."""
    parts = {name: render(view) for name, render in _SECTIONS.items()}
    main = [tag("div", parts["tiles"], id="tiles", class_="tiles")]
    main += [
        tag("section", parts[name], id=name)
        for name in ("partitions", "policies", "verdicts", "quarantine")
    ]
    footer = join(
        "This worker only. ",
        *(join(tag("a", path, href=path), " ") for path in ("healthz", "readyz", "metrics")),
        tag("span", "The worker does not answer; what you see is old.", id="stale", class_="bad"),
    )
    body = join(
        tag("header", parts["status"], id="status"),
        tag("main", tag("div", parts["notices"], id="notices"), *main),
        tag("footer", footer),
        tag("script", Markup(SCRIPT)),
    )
    head = join(
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<link rel="icon" href="data:,">'),
        tag("title", "moderation-worker"),
        tag("style", Markup(STYLE)),
    )
    document = tag("html", tag("head", head), tag("body", body), lang="en")
    return Page(
        body=f"<!doctype html>{document}".encode(),
        content_type="text/html; charset=utf-8",
        headers=HEADERS,
    )


def console_json(view: ConsoleView) -> Page:
    """The same as data (``data``), and as the page's parts (``sections``), already escaped."""
    parts = {name: render(view) for name, render in _SECTIONS.items()}
    data = {
        "live": view.live.ok,
        "ready": view.ready.ok,
        "problems": view.ready.problems,
        "notes": view.ready.notes,
        "snapshot": view.snapshot,
        "activity": view.activity,
        "cache": view.cache,
        "kept": view.kept,
    }
    return Page(
        # The standard library's JSON: an id may hold a lone surrogate, which UTF-8 cannot.
        body=json.dumps({"data": msgspec.to_builtins(data), "sections": parts}).encode(),
        content_type="application/json",
        headers=HEADERS,
    )
