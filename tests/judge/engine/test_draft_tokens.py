"""Drafts of what follows save forwards and change no token, whatever is drafted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch

from tests.support import oracle
from tests.support.checkpoints import make_tokenizer
from tests.support.engine_cases import FIRST, LAST, WINDOW, Source, text
from worker.judge.engine.decode_batch import MAX_DRAFT_TOKENS, DecodeBatch, decode
from worker.judge.engine.device import EngineDevice
from worker.judge.engine.sequences import ComputedSequences, sequences_for
from worker.judge.local.draft_tokens import NameDrafts, reasoning_draft
from worker.judge.local.label_scores import answer_tokens
from worker.judge.local.loading import Checkpoint, encoder
from worker.judge.reference.decode import Draft, Writing, Written
from worker.policy.passes import builtin_rubric, make_rubric

TOKENIZER = make_tokenizer()
ENCODE = encoder(TOKENIZER)
ANSWER = answer_tokens(ENCODE, [TOKENIZER.eos_token_id])
BUDGET = 24
CASES = 60


class Ran(NamedTuple):
    """One forward of slots: rows that had something to compute, and new tokens with drafts."""

    rows: int
    tokens: int


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[Ran]:
    """Every forward of slots, as it is run."""
    counted: list[Ran] = []
    run = DecodeBatch.step

    def noted(self: DecodeBatch, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        states = run(self, *args, **kwargs)
        counts = [len(each) for each in states]
        counted.append(Ran(sum(count > 0 for count in counts), sum(counts)))
        return states

    monkeypatch.setattr(DecodeBatch, "step", noted)
    return counted


def knowing(rng: random.Random, truth: Sequence[int], share: float) -> Draft:
    """Drafts of which some are what will be written, between others that are not."""

    def wrong() -> tuple[int, ...]:
        return text(rng, 9)

    def draft(ids: Sequence[int]) -> list[tuple[int, ...]]:
        made = [wrong() for _ in range(rng.randint(0, 3))]
        left = tuple(truth[len(ids) :])
        if left and rng.random() < share:
            right = left[: rng.randint(1, len(left))]
            made.insert(rng.randint(0, len(made)), right)
            if rng.random() < 0.5:  # begins like it and goes on otherwise
                made.insert(0, (*right[:2], rng.randint(FIRST, LAST)))
        return made

    return draft


@pytest.mark.slow
def test_what_is_written_with_drafts_is_what_generate_writes(
    engine: EngineDevice, plain: Checkpoint, forwards: list[Ran], record_property: Any
) -> None:
    """Right ones, wrong ones, several at once, in rows of many policies with images among them, on
    both sides of the window: token for token, with the probability of each."""
    source, run = Source(plain, 40), engine.engine(None)
    writing = Writing(plain.answer.stop, (plain.answer.safe, plain.answer.unsafe))
    longer = tokens = 0
    for batch in source.batches(source.cases(CASES)):
        contexts = [case.context for case in batch]
        rows = sequences_for(contexts, [None] * len(batch), run.prefixes, run.images)
        kept = run.forward.run(rows, keep=[True] * len(rows)).kept
        computed = ComputedSequences(run.forward, [each for each in kept if each is not None])
        truths = [oracle.generate(plain.model, context, (), BUDGET) for context in contexts]
        drafts = [knowing(source.rng, truth, 0.7) for truth in truths]
        written = computed.write(
            range(len(batch)), contexts, [BUDGET] * len(batch), writing, drafts
        )
        for context, each, truth in zip(contexts, written, truths, strict=True):
            assert each.ids == truth
            alone = oracle.logits(plain.model, context, truth).log_softmax(-1)
            first = len(context) - 1
            for place, (token, found) in enumerate(zip(truth, each.logprobs, strict=True)):
                assert found == pytest.approx(float(alone[first + place, token]), abs=1e-4)
            longer += len(context) > WINDOW
            tokens += len(truth)
    computed_rows = sum(each.rows for each in forwards)
    figures = f"{tokens} tokens behind {CASES} contexts in {computed_rows} steps of a row"
    record_property("figures", figures)
    print(figures)
    assert computed_rows <= 0.6 * tokens, figures
    assert min(longer, CASES - longer) >= 10


def test_a_known_name_takes_two_forwards_however_long_it_is(
    engine: EngineDevice, plain: Checkpoint, forwards: list[Ran]
) -> None:
    """The first token says which name it is, and the rest is there with the next forward."""
    source, run = Source(plain, 41), engine.engine(None)
    truth: list[int] = []
    while len(truth) < BUDGET:
        context = source.case(image=False).context
        truth = oracle.generate(plain.model, context, (), BUDGET)

    def name(ids: Sequence[int]) -> list[tuple[int, ...]]:
        return [tuple(truth[len(ids) :])] if len(ids) == 1 else []

    (row,) = sequences_for([context], [None], run.prefixes, run.images)
    (kept,) = run.forward.run([row], keep=[True]).kept
    assert kept is not None
    writing = Writing(plain.answer.stop, (plain.answer.safe, plain.answer.unsafe))
    computed = ComputedSequences(run.forward, [kept])
    (written,) = computed.write([0], [context], [BUDGET], writing, [name])
    assert (written.ids, written.ended) == (truth, "length")
    assert len(forwards) == 2


def test_drafts_beyond_their_room_are_left_out(
    engine: EngineDevice, plain: Checkpoint, forwards: list[Ran]
) -> None:
    """A policy of endless phrases costs no more than ``MAX_DRAFT_TOKENS`` a row and forward."""
    source, run = Source(plain, 42), engine.engine(None)
    context = source.case(image=False).context
    (row,) = sequences_for([context], [None], run.prefixes, run.images)
    (kept,) = run.forward.run([row], keep=[True]).kept
    assert kept is not None
    slots = DecodeBatch(run.forward, least=1)
    slots.add(kept, 200)
    writing = Writing(plain.answer.stop, (plain.answer.safe, plain.answer.unsafe))
    draft = [tuple(range(FIRST + n, FIRST + n + 30)) for n in range(50)]
    decode(run.forward, slots, [(FIRST,)], [Written(BUDGET)], [lambda _: draft], writing)
    assert forwards[-1].tokens == 1 + 30 * (MAX_DRAFT_TOKENS // 30)


def test_names_are_drafted_from_their_first_token_on() -> None:
    """Names that begin alike are drafted side by side; a line that begins anew drafts nothing."""
    draft = NameDrafts(ANSWER, TOKENIZER).of(builtin_rubric(()))
    sexual, minor = (tuple(ENCODE(f" {name}")) for name in ("Sexual", "Sexual (minor)"))
    violence, comma = tuple(ENCODE(" Violence")), tuple(ANSWER.comma)
    assert draft(()) == []
    assert draft((*violence, *comma)) == []
    begun = sexual[:1]
    found = draft((*violence, *comma, *begun))
    assert (*sexual[1:], *comma) in found
    assert all((*begun, *each)[-len(comma) :] == comma for each in found)
    if minor[:1] == begun:
        assert (*minor[1:], *comma) in found
    assert draft((1, 2, 3)) == []


def test_names_of_a_policy_of_ones_own_are_drafted_and_no_others() -> None:
    rubric = make_rubric("policy", "Judge this.", ("Naming a bank", "Giving away secrets"))
    draft = NameDrafts(ANSWER, TOKENIZER).of(rubric)
    bank = tuple(ENCODE(" Naming a bank"))
    assert draft(bank[:1]) == [(*bank[1:], *ANSWER.comma)]
    assert draft(tuple(ENCODE(" Violence"))[:1]) == []


def test_a_trace_is_drafted_to_open_and_to_close() -> None:
    """Its tags are constant; what stands between them is not."""
    draft = reasoning_draft(ANSWER, TOKENIZER)
    opening = tuple(ENCODE("<think>\n"))
    assert draft(()) == [opening]
    assert draft((*opening, *ENCODE("Fine"))) == []
    behind = (*opening, *ENCODE("Fine.\n\n\n"))
    assert draft(behind) == [(*ENCODE("</think>"), ANSWER.user[0])]
