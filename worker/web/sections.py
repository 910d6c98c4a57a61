"""The console's sections, in the order an engineer on call asks: is it well, does it keep up, what
does it decide, under which rules.
"""

from __future__ import annotations

import msgspec

from worker.judge.cache import CacheFigures
from worker.judge.kept import Kept
from worker.web.health import Health
from worker.web.html import Markup, join, tag
from worker.web.recent import Activity, PolicyCounts, VerdictRow
from worker.web.snapshot import WorkerSnapshot
from worker.web.widgets import (
    Cell,
    bar,
    clock,
    duration,
    heading,
    note,
    number,
    share,
    size,
    sparkline,
    table,
    tile,
)


class ConsoleView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the console shows."""

    snapshot: WorkerSnapshot
    live: Health
    ready: Health
    activity: Activity
    cache: CacheFigures = CacheFigures()
    kept: Kept = Kept()
    show_content: bool = False


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
        tile("Events a second", number(activity.rate), sparkline(activity.series)),
        tile(
            "Lag",
            number(lag),
            note(f"oldest record {duration(oldest)}" if lag else "nothing waits"),
        ),
        tile(
            "In flight",
            number(stream.inflight_events if stream else 0),
            note(size(stream.inflight_bytes if stream else 0)),
        ),
        tile(
            "Verdicts",
            number(activity.events),
            join(bar(list(sums.items())), note(f"{share(undecided)} undecided")),
        ),
        tile("In quarantine", number(activity.held), note("held or blocked, since start")),
        tile(
            "Dead letters",
            number(activity.dead_letters),
            note("records that are no event"),
            kind="warn" if activity.dead_letters else "",
        ),
        tile(
            "Batch fill",
            share(activity.batch_fill),
            note(f"{number(activity.batch_contexts)} contexts" if activity.batch_contexts else ""),
        ),
        tile(
            "With reasoning",
            share(activity.think_share),
            note(f"{activity.think_shed} shed in the last minute" if activity.think_shed else ""),
        ),
        tile(
            "From cache",
            share(activity.cached_share),
            note(
                f"{size(view.cache.bytes)} of {size(view.cache.max_bytes)} kept"
                if view.cache.max_bytes
                else "off"
            ),
        ),
        tile(
            "Policies on the device",
            number(view.kept.policies),
            note(
                f"{size(view.kept.policy_bytes)} of {size(view.kept.policy_max_bytes)}, "
                f"{number(view.kept.images)} images, {number(view.kept.image_keys)} under a policy"
                if view.kept.policy_max_bytes
                else "none kept"
            ),
        ),
        tile("Decided by lists", number(activity.prefiltered), note("in the last minute")),
    )


def partitions(view: ConsoleView) -> Markup:
    """What this worker owns and how far it is."""
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
        for each in (stream.partitions if stream else ())
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
    return join(heading("Partitions"), table(columns, rows, empty))


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
    return join(heading("Policies"), table(columns, rows, "No policy is live."))


def verdicts(view: ConsoleView) -> Markup:
    """The last verdicts: ids and codes; what was said only when switched on."""
    columns = [
        ("Time (UTC)", ""),
        ("Outcome", ""),
        ("Action", ""),
        ("Event", "id"),
        ("Policy", ""),
        ("Why", "wrap"),
        ("Score", "n"),
        ("Took", "n"),
        ("Source", ""),
    ]
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
        "–" if row.score is None else f"{row.score:.3f}",
        f"{row.total_ms:.0f} ms",
        f"{row.topic}/{row.partition}@{row.offset}",
    )
    return (*cells, row.text) if show_content else cells


def quarantine(view: ConsoleView) -> Markup:
    """What waits for a person; with its reasoning only when switched on."""
    entries = [
        tag(
            "div",
            tag("span", clock(each.at), class_="dim"),
            " ",
            tag("b", each.event_id[:120]),
            " ",
            tag("span", f"{each.outcome}, {each.action}", class_=each.outcome),
            " ",
            tag("span", each.reason or ", ".join(each.categories), class_="dim"),
            tag("p", each.trace) if view.show_content and each.trace else "",
            class_="trace",
        )
        for each in view.activity.quarantine[:20]
    ]
    content = entries or [tag("div", "Nothing was held.", class_="empty")]
    return join(heading("Quarantine"), tag("div", *content, class_="card"))
