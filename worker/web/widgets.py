"""The console's small parts: numbers for people, bars, sparklines, tables."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from worker.web.html import Markup, join, tag

Cell = Markup | str | int | float


def number(value: float) -> str:
    """A number with thousands apart; a fraction only where it matters."""
    if isinstance(value, int) or value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.2f}"


def size(value: float) -> str:
    """Bytes in the largest unit that leaves a number above one."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""  # unreachable: the last unit returns


def duration(seconds: float) -> str:
    """Seconds in the two units that say most."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def share(value: float | None) -> str:
    """A share as a percentage, or a dash where nothing was counted."""
    return "–" if value is None else f"{value * 100:.0f} %"


def clock(seconds: float) -> str:
    """Time of day, UTC."""
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


def tile(label: str, value: str, detail: object = "", *, kind: str = "") -> Markup:
    """One figure. ``detail`` stands under it."""
    return tag(
        "div", tag("span", label), tag("b", value, class_=kind or None), detail, class_="tile"
    )


def note(content: str) -> Markup:
    """A tile's small print."""
    return tag("i", content)


def bar(parts: Sequence[tuple[str, float]]) -> Markup:
    """Shares of a whole, side by side; each is a class and a size. No style attribute: the CSP
    allows none.
    """
    whole = sum(amount for _, amount in parts) or 1.0
    at, drawn = 0.0, []
    for kind, amount in parts:
        width = 100 * amount / whole
        if width:
            drawn.append(
                tag("rect", x=f"{at:.2f}%", width=f"{width:.2f}%", height="100%", class_=kind)
            )
        at += width
    track = tag("rect", width="100%", height="100%", class_="track")
    label = ", ".join(f"{kind} {number(amount)}" for kind, amount in parts)
    return tag("svg", track, *drawn, class_="bar", role="img", aria_label=label)


def sparkline(series: Sequence[int]) -> Markup:
    """Events of each second, oldest at the left."""
    top, last = max(series, default=0) or 1, max(1, len(series) - 1)
    points = " ".join(
        f"{100 * at / last:.1f},{28 - 26 * value / top:.1f}" for at, value in enumerate(series)
    )
    return tag(
        "svg",
        tag("polyline", points=points),
        class_="spark",
        viewBox="0 0 100 30",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"events a second over the last minute, at most {top}",
    )


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Cell]], empty: str) -> Markup:
    """A table; each column is a heading and a class (``n`` for numbers, ``id``, ``wrap``)."""
    body = [
        tag(
            "tr",
            *(
                tag("td", cell, class_=kind or None, title=cell if kind == "id" else None)
                for (_, kind), cell in zip(columns, row, strict=True)
            ),
        )
        for row in rows
    ]
    if not body:
        return tag("div", tag("div", empty, class_="empty"), class_="card")
    head = tag("tr", *(tag("th", name, class_=kind or None) for name, kind in columns))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="card")


def heading(title: str, detail: str = "") -> Markup:
    """A section's heading with its small print."""
    return tag("h2", title, join(" ", tag("small", detail)) if detail else "")
