"""The console shows the worker, and nothing that it is shown can take it over."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import msgspec
import pytest

from tests.support.canary import CANARY, assert_no_canary
from tests.support.verdicts import make_verdict
from tests.support.views import (
    TOPICS,
    busy_view,
    make_partition,
    make_snapshot,
    make_stream,
    make_view,
)
from worker.clock import ManualClock
from worker.contracts.verdict import CategoryVerdict, Verdict
from worker.judge.cache import CacheFigures
from worker.judge.statistics import Kept
from worker.web.console import ConsoleView, Page, console_json, console_page, size, tag, text
from worker.web.console_assets import CSP
from worker.web.recent import Recent
from worker.web.snapshot import PolicyRow

ATTACKS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<svg/onload=alert(1)>",
    "&lt;script&gt;",
    "javascript:alert(1)",
    "</td></table><iframe srcdoc=x>",
    "\u202egnp.exe\x00\x1b[31m\ud800",
)
VOID = {"meta", "link", "input"}


class Structure(HTMLParser):
    """Every element and attribute of a page, and whether elements are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.hrefs: set[str] = set()
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.hrefs |= {value or "" for name, value in attrs if name in ("href", "src")}
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def hostile_view(attack: str, *, show_content: bool = True) -> ConsoleView:
    """``attack`` in everything that comes from events, and in what operators name as well."""
    recent = Recent(ManualClock(), show_content=show_content)
    verdict: Verdict = msgspec.structs.replace(
        make_verdict(event_id=attack, conversation_id=attack, policy=attack, topic=attack),
        outcome="unsafe",
        action="hold",
        categories=(CategoryVerdict(name=attack, source="custom"),),
        undecided_reason=attack,
    )
    recent.add(verdict, held=True, text=attack, traces=(attack,))
    snapshot = make_snapshot(
        group=attack,
        stream=make_stream(
            partitions=(make_partition(attack, 0, held_by=attack),),
            paused_dependencies=(attack,),
            fatal=attack,
        ),
        policies=(PolicyRow(name=attack, version=1, sha256=attack, topics=(attack,)),),
        unready_topics=(attack,),
        policy_problems=(attack,),
    )
    return make_view(snapshot, recent, show_content)


def plain(page: Page) -> str:
    return page.body.decode()


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_id_can_become_markup(attack: str) -> None:
    """A hostile page has the elements and attributes of a harmless one, no more."""
    harmless = Structure(plain(console_page(hostile_view("harmless"))))
    hostile = Structure(plain(console_page(hostile_view(attack))))
    assert hostile.tags == harmless.tags
    assert hostile.attributes == harmless.attributes
    assert not [each for each in hostile.attributes if each.startswith("on")]
    assert hostile.hrefs == harmless.hrefs == {"healthz", "readyz", "metrics", "data:,"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_the_script_inserts_is_the_page_itself(attack: str) -> None:
    """The polled parts are escaped by the same code, so polling adds no way in."""
    view = hostile_view(attack)
    page = plain(console_page(view))
    parts = json.loads(console_json(view).body)["sections"]
    assert parts
    assert all(part in page for part in parts.values())


def test_the_browser_runs_this_script_and_no_other() -> None:
    """The policy names script and style by digest, forbids everything else, and fits the page."""
    page = plain(console_page(busy_view()))
    assert console_page(busy_view()).headers["Content-Security-Policy"] == CSP
    assert "default-src 'none'" in CSP
    assert "unsafe" not in CSP
    for element in ("script", "style"):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in CSP
    assert "style" not in Structure(page).attributes


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    """A console in a closed network is whole."""
    page = plain(console_page(busy_view()))
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", page)


def test_content_is_shown_only_where_it_was_asked_for() -> None:
    """web.show_content is a switch for texts and for traces, in the page and in its data."""
    for show in (False, True):
        recent = Recent(ManualClock(), show_content=show)
        verdict = msgspec.structs.replace(make_verdict(), undecided_detail=CANARY)
        recent.add(verdict, held=True, text=CANARY, traces=(CANARY,))
        view = make_view(make_snapshot(), recent, show)
        for page in (console_page(view), console_json(view)):
            if show:
                assert page.body.count(CANARY.encode()) >= 2
            else:
                assert_no_canary(page.body)


def test_the_first_look_answers_what_an_engineer_on_call_asks() -> None:
    """State, outages, partitions with lag, policies with versions and problems, last verdicts."""
    page = plain(console_page(busy_view()))
    for expected in (
        "ready",
        "store is away",
        "policies/education.yaml:14",
        "waits for store",
        "1,204",
        *TOPICS,
        "12 (04b1d9e7)",
        "version 13",
        "77 %",
        "not_json",
        f"{TOPICS[1]}/2@77",
        "95 of 100: ",
        "is away",
        "image_missing",
        "Harassment",
        "exactly once",
    ):
        assert expected in page


def test_a_worker_that_is_not_well_says_so_first() -> None:
    """Not live stands over not ready, and every reason is on the page."""
    recent = Recent(ManualClock())
    stuck = make_snapshot(stalled_batch_s=99, model_warm=False)
    page = plain(console_page(make_view(stuck, recent)))
    assert ">not live<" in page
    assert "batch has not moved for 99.0 s" in page
    assert "the model is still loading" in page
    loading = make_snapshot(model_warm=False, stream=None, model=None)
    assert ">not ready<" in plain(console_page(make_view(loading, recent)))


def test_the_data_is_there_for_programs() -> None:
    """The same JSON carries numbers, not only markup."""
    data = json.loads(console_json(busy_view()).body)["data"]
    assert data["ready"] is True
    assert data["snapshot"]["stream"]["partitions"][3]["held_by"] == "store"
    assert data["activity"]["events"] == 1_792


def test_text_is_escaped_unless_it_was_made_here() -> None:
    """The one rule of the page: strings are text."""
    assert (
        tag("b", "<i>", tag("i", "&"), title='"') == '<b title="&quot;">&lt;i&gt;<i>&amp;</i></b>'
    )
    assert text("a\u202eb\x00") == "a\\u202eb\\u0000"
    assert len(text("x" * 100_000)) <= 4_000


def test_what_was_not_judged_by_the_model_is_shown() -> None:
    """How much of the traffic the cache and the policies' own lists took off the device."""
    clock = ManualClock()
    recent = Recent(clock)
    for number in range(10):
        verdict = make_verdict(event_id=f"e-{number}")
        if number < 6:
            verdict = msgspec.structs.replace(verdict, cached=True, decided_by="cache")
        elif number < 8:
            verdict = msgspec.structs.replace(verdict, decided_by="prefilter")
        recent.add(verdict)
    clock.advance(2)
    figures = CacheFigures(hits=6, bytes=3 << 20, max_bytes=32 << 20)
    kept = Kept(
        policies=12,
        policy_bytes=5 << 20,
        policy_max_bytes=64 << 20,
        images=345,
        graphs=4,
        compile_s=61.0,
    )
    view = msgspec.structs.replace(make_view(make_snapshot(), recent), cache=figures, kept=kept)
    page = plain(console_page(view))
    assert re.search(r"From cache.{1,120}?60", page)
    assert f"{size(3 << 20)} of {size(32 << 20)} kept" in page
    assert re.search(r"Decided by lists.{1,120}?>2<", page)
    assert re.search(r"Policies on the device.{1,120}?>12<", page)
    assert f"{size(5 << 20)} of {size(64 << 20)}, 345 images" in page
    assert re.search(r"4 graphs compiled in 1 ?m", page)
    data = json.loads(console_json(view).body)["data"]
    assert data["kept"]["policies"] == 12
    assert data["activity"]["cached_share"] == 0.6
    assert data["activity"]["prefiltered"] == 2
    assert data["cache"]["hits"] == 6


def test_partitions_are_shown_by_lag_and_dependencies_with_the_log_among_them() -> None:
    """What is furthest behind is what somebody opened the page for."""
    page = plain(console_page(busy_view()))
    parts = json.loads(console_json(busy_view()).body)["sections"]
    lags = re.findall(r"<td class=\"n\">([\d,]+)</td>", parts["partitions"])[1::5]
    assert [int(lag.replace(",", "")) for lag in lags] == [1204, 312, 60, 0]
    for name in ("log", "store", "judge", "policy"):
        assert f"<td>{name}</td>" in parts["dependencies"]
    assert parts["dependencies"] in page


def test_every_figure_says_its_window() -> None:
    """A rate of a minute beside a total since the start is misread at three in the morning."""
    tiles = json.loads(console_json(busy_view()).body)["sections"]["tiles"]
    for tile in re.findall(r'<div class="tile">(.*?)</div>', tiles):
        label = re.findall(r"<span>(.*?)</span>", tile)[0]
        assert re.search("now|last minute|since start|off|none kept", tile), label


def test_an_event_is_looked_up_by_its_id() -> None:
    """Found or not, in words; what is asked for is text like any other."""
    view = busy_view()
    row = view.activity.verdicts[0]
    found = msgspec.structs.replace(view, wanted=row.event_id, found=row)
    section = json.loads(console_json(found).body)["sections"]["event"]
    assert section.count(row.event_id) >= 2
    missing = msgspec.structs.replace(view, wanted="<b>")
    section = json.loads(console_json(missing).body)["sections"]["event"]
    assert "Not among the last" in section
    assert "<b>" not in section
