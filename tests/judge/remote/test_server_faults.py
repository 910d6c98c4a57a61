"""A server that fails: the outage pauses, the one bad event is undecided, and nothing is safe."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

import pytest

from tests.support.openai_server import Body, Fault, OpenAIServer, Written
from tests.support.openai_writers import ScriptWriter, script, token
from worker.clock import ManualClock
from worker.codes import UndecidedReason
from worker.errors import DependencyUnavailable, Undecided
from worker.judge.remote.caller import PROBES
from worker.judge.remote.judge import RemoteJudge
from worker.judgement import JudgeRequest
from worker.policy.passes import builtin_rubric

Serve = Callable[..., Awaitable[OpenAIServer]]
JudgeOf = Callable[..., Awaitable[RemoteJudge]]
STOCK = builtin_rubric(())


def safe(_: Body) -> Written:
    return script(token("User Safety:"), token(" safe", 0.98, {" unsafe": 0.01}))


def request(user: str = "fine", **fields: object) -> JudgeRequest:
    return JudgeRequest(**({"user": user, "response": None, "rubric": STOCK} | fields))  # type: ignore[arg-type]


async def reason(judge: RemoteJudge, user: str) -> UndecidedReason:
    with pytest.raises(Undecided) as caught:
        await judge.judge(request(user))
    return caught.value.reason


async def test_a_server_that_is_gone_is_an_outage_and_blames_no_event(
    serve: Serve, judge_of: JudgeOf
) -> None:
    """Refused connections pause the stream; when the server is back, the same event is judged."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    await server.close()
    with pytest.raises(DependencyUnavailable):
        await judge.judge(request())
    await server.open()
    end = time.monotonic() + 20.0
    while True:
        try:
            judged = await judge.judge(request())
            break
        except DependencyUnavailable:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
    assert judged.user.label == "safe"


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_server_is_retried_as_it_asks(
    serve: Serve, judge_of: JudgeOf, status: int
) -> None:
    """Retry-After is waited for, and the event is judged."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server, retry_max_s=2.0)
    server.faults["fine"] = Fault(times=1, status=status, headers={"Retry-After": "1"})
    began = time.monotonic()
    assert (await judge.judge(request())).user.label == "safe"
    assert time.monotonic() - began >= 1.0
    assert len(server.requests) == 2


async def test_a_server_that_asks_for_a_long_wait_is_away(serve: Serve, judge_of: JudgeOf) -> None:
    """A Retry-After beyond ``retry_max_s`` (here a date) holds the stream instead of a request."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    later = formatdate(time.time() + 3600.0, usegmt=True)
    server.faults[""] = Fault(status=429, headers={"Retry-After": later})
    with pytest.raises(DependencyUnavailable):
        await judge.judge(request())
    assert len(server.requests) == 1 + PROBES
    with pytest.raises(DependencyUnavailable):  # the breaker is open: nothing is even sent
        await judge.judge(request())
    assert len(server.requests) == 1 + PROBES


async def test_a_long_wait_for_one_event_holds_up_no_other(serve: Serve, judge_of: JudgeOf) -> None:
    """A limit that a gateway keeps for one kind of request is no outage."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults["limited"] = Fault(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(DependencyUnavailable):
        await judge.judge(request("limited"))
    assert (await judge.judge(request())).user.label == "safe"


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_server_is_never_an_events_fault(
    serve: Serve, judge_of: JudgeOf, status: int
) -> None:
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults["fine"] = Fault(status=status)
    with pytest.raises(DependencyUnavailable):
        await judge.judge(request())


async def test_errors_of_one_event_make_that_event_undecided(
    serve: Serve, judge_of: JudgeOf
) -> None:
    """500 to one event, three times, while the server answers others."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults["bad"] = Fault(status=500)
    assert await reason(judge, "bad") is UndecidedReason.JUDGE_REJECTED
    assert server.texts().count("bad") == 3
    assert (await judge.judge(request())).user.label == "safe"


async def test_errors_of_every_event_are_an_outage(serve: Serve, judge_of: JudgeOf) -> None:
    """500 to everything: nobody is undecided, and after the breaker opened little is sent."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults[""] = Fault(status=500)
    results = await asyncio.gather(
        *(judge.judge(request(f"event {n}")) for n in range(50)), return_exceptions=True
    )
    assert all(isinstance(result, DependencyUnavailable) for result in results)
    sent = len(server.requests)
    assert sent <= 50 + PROBES  # each once at most, and the same probes for all
    with pytest.raises(DependencyUnavailable):
        await judge.judge(request())
    assert len(server.requests) == sent


async def test_a_passing_error_is_retried(serve: Serve, judge_of: JudgeOf) -> None:
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults["fine"] = Fault(times=1, status=500)
    assert (await judge.judge(request())).user.label == "safe"


async def test_one_slow_event_is_undecided(serve: Serve, judge_of: JudgeOf) -> None:
    """It never comes back while others do: the event's verdict says so."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server, timeout_s=0.3, attempts=2)
    server.faults["slow"] = Fault(hang=True)
    assert await reason(judge, "slow") is UndecidedReason.JUDGE_TIMEOUT
    assert judge.stalled_s() == 0.0


async def test_a_hung_server_is_an_outage(serve: Serve, judge_of: JudgeOf) -> None:
    """It takes connections and answers nothing: no event is blamed, and none waits for long."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server, timeout_s=0.3)
    server.faults[""] = Fault(hang=True)
    began = time.monotonic()
    with pytest.raises(DependencyUnavailable):
        await judge.judge(request())
    assert time.monotonic() - began < 10.0


async def test_a_hung_request_shows_as_stalled(serve: Serve, judge_of: JudgeOf) -> None:
    """Health looks at the oldest request in flight."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults[""] = Fault(hang=True)
    task = asyncio.ensure_future(judge.judge(request()))
    end = time.monotonic() + 10.0
    while judge.stalled_s() <= 0.05:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert judge.stalled_s() == 0.0


async def test_a_body_that_is_cut_off_is_asked_for_again(serve: Serve, judge_of: JudgeOf) -> None:
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults["fine"] = Fault(times=1, cut=True)
    assert (await judge.judge(request())).user.label == "safe"
    server.faults["bad"] = Fault(cut=True)
    assert await reason(judge, "bad") is UndecidedReason.JUDGE_REJECTED


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
async def test_a_refused_key_or_a_lost_model_is_the_operators_fault(
    serve: Serve, judge_of: JudgeOf, status: int
) -> None:
    """Nothing passes: no event is blamed, and the stream waits until it is mended."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults[""] = Fault(status=status)
    with pytest.raises(DependencyUnavailable):
        await judge.judge(request())
    assert len(server.requests) == 1 + PROBES


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
async def test_a_gateway_s_rule_against_one_event_is_that_event_s_alone(
    serve: Serve, judge_of: JudgeOf, status: int
) -> None:
    """A firewall that answers 403 to `<script>` stops neither the partition nor the fleet."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults["<script>"] = Fault(status=status)
    blocked = asyncio.ensure_future(reason(judge, "<script>"))
    others = await asyncio.gather(*(judge.judge(request(f"event {n}")) for n in range(20)))
    assert {other.user.label for other in others} == {"safe"}
    assert await blocked is UndecidedReason.JUDGE_REJECTED
    assert not judge._caller.breaker.is_open


@pytest.mark.parametrize("status", [429, 503])
async def test_an_event_that_is_turned_away_again_and_again_beside_others_is_undecided(
    serve: Serve, judge_of: JudgeOf, status: int
) -> None:
    """It is not retried for ever; a server that is busy for a while blames nobody."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server, retry_initial_s=0.01)
    server.faults["unlucky"] = Fault(status=status)
    blamed: list[UndecidedReason] = []
    for round_ in range(20):
        await asyncio.gather(*(judge.judge(request(f"event {round_}.{n}")) for n in range(5)))
        try:
            await judge.judge(request("unlucky"))
        except DependencyUnavailable:
            continue
        except Undecided as undecided:
            blamed.append(undecided.reason)
            break
    assert blamed == [UndecidedReason.JUDGE_REJECTED]
    assert server.texts().count("unlucky") >= 15


@pytest.mark.parametrize("status", [500, 502])
async def test_one_broken_replica_of_two_costs_no_verdict(
    serve: Serve, judge_of: JudgeOf, status: int
) -> None:
    """Every second answer is an error: the next try finds the healthy one, and nobody is blamed."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server, retry_initial_s=0.005)
    server.faults[""] = Fault(status=status, share=0.5)

    async def judged(n: int) -> str:
        while True:
            try:
                return (await judge.judge(request(f"event {n}"))).user.label
            except DependencyUnavailable:
                await asyncio.sleep(0.01)

    results = await asyncio.gather(*(judged(n) for n in range(200)))
    assert results == ["safe"] * 200
    sent = len(server.requests)
    assert sent <= 200 / 0.5 / 0.8  # goodput: 0.8 of the healthy share at least
    assert not judge._caller.breaker.is_open


async def test_a_refusal_is_the_events_and_is_not_repeated(serve: Serve, judge_of: JudgeOf) -> None:
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults["bad"] = Fault(status=400, message="bad request")
    assert await reason(judge, "bad") is UndecidedReason.JUDGE_REJECTED
    assert server.texts().count("bad") == 1


async def test_a_server_that_refuses_everything_is_an_outage(
    serve: Serve, judge_of: JudgeOf
) -> None:
    """After an upgrade it knows a field no more: events wait, they are not a flood of undecided."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults[""] = Fault(status=422, message="unknown field")
    with pytest.raises(DependencyUnavailable):
        await judge.judge(request())


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, your prompt contains ...",
        "Input length (5000 tokens) exceeds the maximum allowed length; input is too long.",
        '{"code": "context_length_exceeded"}',
    ],
)
async def test_a_prompt_that_does_not_fit_says_so(
    serve: Serve, judge_of: JudgeOf, message: str
) -> None:
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults["long"] = Fault(status=400, message=message)
    assert await reason(judge, "long") is UndecidedReason.CONTEXT_TOO_LONG


async def test_earlier_turns_give_way_where_the_server_has_no_room(
    serve: Serve, judge_of: JudgeOf
) -> None:
    """Only the judged turn must fit whole."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server)
    server.faults["before"] = Fault(status=400, message="maximum context length is 10 tokens")
    judged = await judge.judge(request("now", earlier=(("user", "before"),)))
    assert (judged.context.included, judged.context.omitted) == (0, 1)
    assert server.texts()[-1] == "now"


async def test_retries_are_budgeted(serve: Serve, judge_of: JudgeOf) -> None:
    """A server that fails half the time is not sent three times the load."""
    server = await serve(ScriptWriter(safe))
    judge = await judge_of(server, retry_max_s=0.02)
    server.faults["fine"] = Fault(status=503)
    await asyncio.gather(*(judge.judge(request()) for _ in range(40)), return_exceptions=True)
    assert len(server.requests) <= 40 + 15


async def test_the_breaker_lets_through_nothing_but_a_probe(
    serve: Serve, judge_of: JudgeOf
) -> None:
    """While the server is away many events cost the same few questions each cooldown."""
    server = await serve(ScriptWriter(safe))
    clock = ManualClock()
    judge = await judge_of(server, clock=clock, attempts=1)
    server.faults[""] = Fault(status=503)
    for n in range(8):
        with pytest.raises(DependencyUnavailable):
            await judge.judge(request(f"event {n}"))
    clock.advance(1.0)
    server.requests.clear()
    results = await asyncio.gather(
        *(judge.judge(request()) for _ in range(20)), return_exceptions=True
    )
    assert all(isinstance(result, DependencyUnavailable) for result in results)
    assert len(server.requests) == PROBES
    server.faults.clear()
    clock.advance(2.0)
    assert (await judge.judge(request())).user.label == "safe"


async def test_no_more_than_the_limit_is_in_flight(serve: Serve, judge_of: JudgeOf) -> None:
    """And the limit is used: an answer comes only when three are being asked for."""
    together = threading.Barrier(3, timeout=20.0)

    def three_at_a_time(body: Body) -> Written:
        if body["messages"][0]["content"].startswith("event"):
            together.wait()
        return safe(body)

    server = await serve(ScriptWriter(three_at_a_time))
    judge = await judge_of(server, concurrency=3, timeout_s=30.0)
    await asyncio.gather(*(judge.judge(request(f"event {n}")) for n in range(30)))
    assert server.most_in_flight == 3
