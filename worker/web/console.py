"""The console: one page and the JSON it polls, both made from one view."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from html import escape

import msgspec

from worker.judge.cache import CacheFigures
from worker.judge.statistics import Kept
from worker.web.console_assets import HEADERS, SCRIPT, STYLE
from worker.web.health import Health
from worker.web.recent import FINDABLE, Activity, CodeCount, PolicyCounts, VerdictRow
from worker.web.snapshot import WorkerSnapshot

# Just enough HTML: everything is escaped unless it was made here.

MAX_TEXT = 4000
VOID = frozenset({"input"})
"""Elements without an end."""


class Markup(str):
    """HTML that is already safe."""

    __slots__ = ()


def text(value: object) -> Markup:
    """``value`` as text, escaped; what does not print is shown as its code.

    Escaping alone is not enough for hostile ids: a right-to-left override turns a row of the table
    around, and a null or a lone surrogate is no valid HTML.
    """
    if isinstance(value, Markup):
        return value
    plain = str(value)[:MAX_TEXT]
    if not plain.isprintable():
        plain = "".join(
            each if each.isprintable() or each == "\n" else f"\\u{ord(each):04x}" for each in plain
        )
    return Markup(escape(plain, quote=True))


def tag(element: str, /, *children: object, **attributes: object) -> Markup:
    """An element. ``class_`` is class, ``data_x`` is data-x; attributes that are None are left out.

    Names of elements and attributes come from the source, never from data.
    """
    rendered = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(text(child) for child in children)
    return Markup(f"<{element}{rendered}>" + ("" if element in VOID else f"{inner}</{element}>"))


def join(*children: object) -> Markup:
    """Children side by side."""
    return Markup("".join(text(child) for child in children))


# The console's small parts: numbers for people, bars, sparklines, tables.

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


def took(milliseconds: float | None) -> str:
    """A time in milliseconds, in seconds where that reads better."""
    if milliseconds is None:
        return "–"
    return duration(milliseconds / 1e3) if milliseconds >= 1000 else f"{milliseconds:.0f} ms"


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


# The console's sections, in the order an engineer on call asks: is it well, does it keep up, what
# does it decide, under which rules.


class ConsoleView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the console shows."""

    snapshot: WorkerSnapshot
    live: Health
    ready: Health
    activity: Activity
    cache: CacheFigures = CacheFigures()
    kept: Kept = Kept()
    show_content: bool = False
    wanted: str = ""
    found: VerdictRow | None = None


def status(view: ConsoleView) -> Markup:
    """The worker's name and state."""
    snapshot = view.snapshot
    word, kind = ("ready", "ok") if view.ready.ok else ("not ready", "warn")
    if not view.live.ok:
        word, kind = "not live", "bad"
    model = snapshot.model
    facts = [
        snapshot.group,
        snapshot.delivery.replace("_", " "),
        f"up {duration(snapshot.uptime_s)}",
    ]
    if model is not None:
        named = f"{model.id}@{model.revision[:8]}" if model.revision else model.id
        facts.insert(1, f"{named} ({model.numerics})")
    if view.kept.graphs:
        facts.append(f"{view.kept.graphs} graphs compiled in {duration(view.kept.compile_s)}")
    return join(
        tag("h1", f"moderation-worker {snapshot.version}"),
        tag("span", word, class_=f"pill {kind}"),
        tag("span", " · ".join(each for each in facts if each), class_="dim"),
    )


def notices(view: ConsoleView) -> Markup:
    """What is wrong, and what is being waited for."""
    failing = {each.detail: each for each in (*view.live.problems, *view.ready.problems)}
    return join(
        *(
            tag("div", tag("b", each.code), " ", each.detail, class_="notice bad")
            for each in failing.values()
        ),
        *(
            tag("div", tag("b", each.code), " ", each.detail, class_="notice")
            for each in view.ready.notes
        ),
        *(
            tag("div", tag("b", each), " judges: it cannot tell what is harmful", class_="notice")
            for each in (view.ready.demonstration,)
            if each is not None
        ),
    )


def tiles(view: ConsoleView) -> Markup:
    """The figures that move."""
    activity, stream = view.activity, view.snapshot.stream
    partitions = stream.partitions if stream else ()
    lag = sum(each.lag for each in partitions)
    oldest = max((each.oldest_age_s for each in partitions), default=0.0)
    sums = {
        kind: sum(getattr(each, kind) for each in activity.policies)
        for kind in ("safe", "unsafe", "undecided")
    }
    undecided = sums["undecided"] / activity.events if activity.events else None
    return join(
        tile(
            "Events a second",
            number(activity.rate),
            join(sparkline(activity.series), note("mean of the last minute")),
        ),
        tile(
            "Time an event",
            took(activity.p50_ms),
            note(f"half of the last minute's; 95 of 100: {took(activity.p95_ms)}"),
        ),
        tile(
            "Lag",
            number(lag) if partitions else "–",
            note(
                "nothing is read yet"
                if not partitions
                else f"now; oldest record {duration(oldest)}"
                if lag
                else "now; nothing waits"
            ),
        ),
        tile(
            "In flight",
            number(stream.inflight_events if stream else 0),
            note(f"now; {size(stream.inflight_bytes if stream else 0)}"),
        ),
        tile(
            "Verdicts",
            number(activity.events),
            join(bar(list(sums.items())), note(f"since start; {share(undecided)} undecided")),
        ),
        tile("In quarantine", number(activity.held), note("held or blocked, since start")),
        tile(
            "Dead letters",
            number(activity.dead_letters),
            note("records that are no event, since start"),
            kind="warn" if activity.dead_letters else "",
        ),
        tile(
            "Batch fill",
            share(activity.batch_fill),
            note(
                f"{number(activity.batch_contexts)} contexts, last minute"
                if activity.batch_contexts
                else "last minute"
            ),
        ),
        tile(
            "With reasoning",
            share(activity.think_share),
            note(
                f"last minute; {activity.think_shed} shed" if activity.think_shed else "last minute"
            ),
        ),
        tile(
            "From cache",
            share(activity.cached_share),
            note(
                f"last minute; {size(view.cache.bytes)} of {size(view.cache.max_bytes)} kept"
                if view.cache.max_bytes
                else "off"
            ),
        ),
        tile(
            "Policies on the device",
            number(view.kept.policies),
            note(
                f"now; {size(view.kept.policy_bytes)} of {size(view.kept.policy_max_bytes)}, "
                f"{number(view.kept.images)} images, {number(view.kept.image_keys)} under a policy"
                if view.kept.policy_max_bytes
                else "none kept"
            ),
        ),
        tile("Decided by lists", number(activity.prefiltered), note("in the last minute")),
    )


def dependencies(view: ConsoleView) -> Markup:
    """What the worker needs of others, and whether it has it."""
    stream = view.snapshot.stream
    away = stream.paused_dependencies if stream else ()
    rows: list[tuple[Cell, ...]] = []
    for name in dict.fromkeys((*DEPENDENCIES, *away)):
        held = [each for each in (stream.partitions if stream else ()) if each.held_by == name]
        state = tag("span", "answers", class_="ok")
        if name in away:
            state = tag("span", "is away", class_="warn")
        elif stream is None:
            state = tag("span", "not asked yet", class_="dim")
        rows.append((name, state, number(len(held))))
    columns = (("Dependency", ""), ("State", ""), ("Partitions that wait for it", "n"))
    return join(heading("Dependencies", "now"), table(columns, rows, ""))


def partitions(view: ConsoleView) -> Markup:
    """What this worker owns and how far it is, the furthest behind first."""
    stream = view.snapshot.stream
    rows: list[tuple[Cell, ...]] = [
        (
            each.source.topic,
            each.source.partition,
            number(each.lag),
            number(each.position),
            number(each.committed),
            number(each.inflight),
            duration(each.oldest_age_s) if each.inflight or each.lag else "–",
            tag("span", f"waits for {each.held_by}", class_="warn")
            if each.held_by
            else ("one by one" if each.isolating else tag("span", "running", class_="ok")),
        )
        for each in sorted(
            stream.partitions if stream else (),
            key=lambda each: (-each.lag, -each.oldest_age_s, each.source),
        )
    ]
    columns = (
        ("Topic", ""),
        ("Partition", "n"),
        ("Lag", "n"),
        ("Position", "n"),
        ("Committed", "n"),
        ("In flight", "n"),
        ("Oldest", "n"),
        ("State", ""),
    )
    empty = "No partitions are assigned to this worker."
    return join(heading("Partitions", "now, most lag first"), table(columns, rows, empty))


def policies(view: ConsoleView) -> Markup:
    """Rules in force, and what came of them."""
    counts = {each.policy: each for each in view.activity.policies}
    rows: list[tuple[Cell, ...]] = []
    for each in view.snapshot.policies:
        seen = counts.get(each.name, PolicyCounts(policy=each.name))
        rows.append(
            (
                each.name,
                f"{each.version} ({each.sha256[:8]})",
                ", ".join(each.topics),
                bar([("safe", seen.safe), ("unsafe", seen.unsafe), ("undecided", seen.undecided)]),
                number(seen.safe),
                number(seen.unsafe),
                number(seen.undecided),
                number(seen.last_minute),
                each.think,
                "–" if each.candidate is None else f"version {each.candidate}",
            )
        )
    columns = (
        ("Policy", ""),
        ("Version", ""),
        ("Topics", ""),
        ("Outcomes", ""),
        ("Safe", "n"),
        ("Unsafe", "n"),
        ("Undecided", "n"),
        ("Last minute", "n"),
        ("Think", ""),
        ("Candidate", ""),
    )
    detail = "counts since start"
    return join(heading("Policies", detail), table(columns, rows, "No policy is live."))


def trouble(view: ConsoleView) -> Markup:
    """Why events are undecided and records are none, by code; where the last of those stand."""
    columns = (("Code", ""), ("Since start", "n"), ("Last minute", "n"))

    def counted(counts: Sequence[CodeCount]) -> list[tuple[Cell, ...]]:
        return [(each.code, number(each.total), number(each.last_minute)) for each in counts]

    letters: list[tuple[Cell, ...]] = [
        (clock(each.at), each.code, f"{each.topic}/{each.partition}@{each.offset}")
        for each in view.activity.last_dead_letters[:10]
    ]
    return join(
        heading("Undecided, by reason"),
        table(columns, counted(view.activity.undecided), "No event was undecided."),
        heading("Dead letters, by code"),
        table(columns, counted(view.activity.dead_letter_codes), "Every record was an event."),
        heading("Last dead letters", "moderation-worker deadletter list shows all of them")
        if letters
        else "",
        table((("Time (UTC)", ""), ("Code", ""), ("Source", "")), letters, "") if letters else "",
    )


def event(view: ConsoleView) -> Markup:
    """One event, looked up by its id."""
    form = tag(
        "form",
        tag("label", "Find an event by its id ", tag("input", name="event", value=view.wanted)),
        tag("button", "Find"),
        class_="find",
        role="search",
    )
    if not view.wanted:
        return form
    empty = (
        f"Not among the last {FINDABLE:,} verdicts of this worker; another worker, or the verdict "
        "topic, may have it."
    )
    rows = [] if view.found is None else [_verdict(view.found, False)]
    return join(form, table(VERDICT, rows, empty))


VERDICT = (
    ("Time (UTC)", ""),
    ("Outcome", ""),
    ("Action", ""),
    ("Event", "id"),
    ("Policy", ""),
    ("Why", "wrap"),
    ("Score", "n"),
    ("Took", "n"),
    ("Source", ""),
)


def verdicts(view: ConsoleView) -> Markup:
    """The last verdicts: ids and codes; what was said only when switched on."""
    columns = list(VERDICT)
    if view.show_content:
        columns.append(("Text", "wrap"))
    rows = [_verdict(each, view.show_content) for each in view.activity.verdicts[:20]]
    detail = "" if view.show_content else "without content (web.show_content is off)"
    return join(heading("Last verdicts", detail), table(columns, rows, "None yet."))


def _verdict(row: VerdictRow, show_content: bool) -> tuple[Cell, ...]:
    cells: tuple[Cell, ...] = (
        clock(row.at),
        tag("span", row.outcome, class_=row.outcome),
        row.action,
        row.event_id[:120],
        f"{row.policy} {row.version}",
        row.reason or ", ".join(row.categories) or "–",
        "–" if row.score is None else f"{row.score:.3f} {row.side}",
        f"{row.total_ms:.0f} ms",
        f"{row.topic}/{row.partition}@{row.offset}",
    )
    return (*cells, row.text) if show_content else cells


def quarantine(view: ConsoleView) -> Markup:
    """What waits for a person; with its reasoning only when switched on."""
    columns = [*VERDICT, ("Reasoning", "wrap")] if view.show_content else list(VERDICT)
    rows = [
        (*_verdict(each, False), each.trace) if view.show_content else _verdict(each, False)
        for each in view.activity.quarantine[:20]
    ]
    detail = "moderation-worker quarantine list names the record of each"
    return join(heading("Quarantine", detail), table(columns, rows, "Nothing was held."))


_SECTIONS = {
    "status": status,
    "notices": notices,
    "tiles": tiles,
    "dependencies": dependencies,
    "partitions": partitions,
    "policies": policies,
    "trouble": trouble,
    "event": event,
    "verdicts": verdicts,
    "quarantine": quarantine,
}
_IN_MAIN = tuple(name for name in _SECTIONS if name not in ("status", "notices", "tiles"))
DEPENDENCIES = ("log", "store", "judge", "policy")
"""What a worker needs of others, by the names that metrics and logs use."""


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
    main += [tag("section", parts[name], id=name) for name in _IN_MAIN]
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
