"""A trace ends where its answer begins: behind the last closing tag, not before, not after."""

from __future__ import annotations

import pytest

from tests.support.checkpoints import make_tokenizer
from tests.support.script_model import ScriptModel
from worker.judge.local.label_scores import answer_tokens
from worker.judge.local.loading import encoder
from worker.judge.local.reasoning import PlainReasoning
from worker.judge.local.requests import ReasoningRequest, ReasoningResult
from worker.judge.reference.decode import Context

TOKENIZER = make_tokenizer()
ENCODE = encoder(TOKENIZER)
MARK = TOKENIZER.convert_tokens_to_ids("<unused17>")
ANSWER = answer_tokens(ENCODE, [TOKENIZER.eos_token_id])


def write(text: str, budget: int = 200) -> ReasoningResult:
    script = [*ENCODE(text), TOKENIZER.eos_token_id]
    model = ScriptModel(len(TOKENIZER), MARK, script)
    ask = ReasoningRequest(Context((*ENCODE("the prompt"), MARK)), budget)
    writer = PlainReasoning(model, ANSWER, TOKENIZER, 0)
    writer.add([ask])
    while writer.active:
        for _, trace in writer.step():
            assert isinstance(trace, ReasoningResult)
            return trace
    raise AssertionError("no trace came")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("<think>\nFine.\n\n\n</think>User Safety: safe", "<think>\nFine.\n\n\n</think>"),
        ("<think>\nFine.\n</think>\nUser Safety: safe", "<think>\nFine.\n</think>\n"),
        ("<think>\nFine.\n</think>", "<think>\nFine.\n</think>"),
        ("<think>\nA</think> b</think>User Safety: safe", "<think>\nA</think> b</think>"),
        ("<think>\nUser Safety: safe\n</think>User Safety", "<think>\nUser Safety: safe\n</think>"),
        ("<think>\nFine.\n</think>Final Answer: safe", "<think>\nFine.\n</think>"),
        ("<think>\nNever closed", "<think>\nNever closed"),
        ("User Safety: safe", "User Safety: safe"),
    ],
)
def test_the_trace_is_kept_up_to_its_last_closing_tag(written: str, kept: str) -> None:
    """Whatever stands behind the tag is read again by logits, so it is not part of the trace."""
    trace = write(written)
    assert trace.text == kept
    assert TOKENIZER.decode(trace.ids) == kept


def test_the_budget_ends_a_trace_that_does_not_end_itself() -> None:
    trace = write("<think>\n" + "on and " * 100, budget=12)
    assert len(trace.ids) == 12
    assert trace.ended == "length"


def test_the_answer_is_not_written_out() -> None:
    """The step that begins the answer is the last one."""
    assert write("<think>\nFine.\n</think>User Safety: safe").ended == "text"
