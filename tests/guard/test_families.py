"""Every family of guards keeps the promises of ``GuardConformance``, an invented one too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.guard.conformance import GuardConformance
from tests.support import invented_guard, llama_guard
from tests.support.guards import spelled, text_of
from tests.support.openai_server import Body
from worker.errors import Undecided
from worker.guard.base import GuardModel
from worker.guard.llama_guard4 import LLAMA_GUARD4
from worker.guard.nemotron35 import NEMOTRON35, reference_prompt
from worker.policy.passes import builtin_rubric


class TestNemotron35(GuardConformance):
    guard = NEMOTRON35
    served_as = "nvidia/Nemotron-3.5-Content-Safety"

    @staticmethod
    def prompt(messages: Sequence[Body], kwargs: Mapping[str, Any]) -> str:
        response = text_of(messages[1]) if len(messages) > 1 else None
        return reference_prompt(text_of(messages[0]), response, **kwargs)


class TestLlamaGuard4(GuardConformance):
    guard = LLAMA_GUARD4
    served_as = "meta-llama/Llama-Guard-4-12B"
    prompt = staticmethod(llama_guard.prompt)


class TestInventedGuard(GuardConformance):
    guard = invented_guard.INVENTED
    served_as = "harbour-1"
    prompt = staticmethod(invented_guard.prompt)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([each.guard for each in GuardConformance.__subclasses__()]),
    st.text(max_size=20),
    st.booleans(),
    st.text(max_size=20),
)
def test_nothing_around_an_unsafe_answer_makes_it_safe(
    guard: GuardModel, before: str, named: bool, behind: str
) -> None:
    """An unsafe label stays one, or nobody can read it."""
    names = (guard.spelling.other,) if named else ()
    text = f"{before}{spelled(guard, [True], names)}{behind}"
    try:
        answer = guard.parse(text, ("user",), builtin_rubric((), guard))
    except Undecided:
        return
    assert answer.labels[0].label == "unsafe"
