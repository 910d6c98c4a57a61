"""A chat completion as it comes over the wire, and as tokens with their probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from worker.contracts.codes import UndecidedReason
from worker.errors import Undecided
from worker.judge.remote.failure import Failure, Meaning


class _Alternative(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _Token(_Alternative):
    top_logprobs: list[_Alternative] = []


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


@dataclass(frozen=True)
class Token:
    """One token of the answer: its bytes, where they begin in the answer, its log-probability.

    ``others`` are the alternatives listed at its place, the token itself left out.
    """

    start: int
    text: bytes
    logprob: float
    others: tuple[tuple[bytes, float], ...]

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    def unlisted(self) -> float:
        """The most that any token which is not listed can have for its probability."""
        listed = [self.logprob, *(logprob for _, logprob in self.others)]
        rest = max(0.0, 1.0 - sum(math.exp(each) for each in listed))
        return min(rest, math.exp(min(listed)))


@dataclass(frozen=True)
class Answer:
    """What was written. ``text`` is the answer without a trace that came apart from it.

    ``start`` is where ``text`` begins in ``spelled``, the bytes of all tokens. ``trace`` is None
    unless the server handed it out by itself. ``cut`` says that the budget ended the answer.
    """

    text: str
    spelled: bytes
    start: int
    tokens: tuple[Token, ...]
    trace: str | None
    cut: bool
    input_tokens: int
    output_tokens: int

    def place(self, characters: int) -> int:
        """Byte in ``spelled`` of a character of ``text``."""
        return self.start + len(self.text[:characters].encode("utf-8", "surrogateescape"))


def decode_answer(body: bytes) -> Answer:
    """Read the body of a chat completion.

    Raises:
        Failure: it is no chat completion, or its tokens are missing or spell something else.
        Undecided: the server's own filter refused to write an answer.
    """
    try:
        completion = msgspec.json.decode(body, type=_Completion)
        choice = completion.choices[0]
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as error:
        raise _unusable("not_json", "the answer is no chat completion") from error
    if choice.finish_reason == "content_filter":
        raise Undecided(UndecidedReason.JUDGE_REJECTED, detail="the server's filter refused it")
    message, usage = choice.message, completion.usage or _Usage()
    tokens = _tokens(choice.logprobs)
    spelled = b"".join(token.text for token in tokens)
    text = (message.content or "").strip()
    start = spelled.rfind(text.encode("utf-8", "surrogateescape"))
    if start < 0:
        raise _unusable("no_logprobs", "the tokens do not spell the answer")
    trace = message.reasoning_content or message.reasoning
    return Answer(
        text=text,
        spelled=spelled,
        start=start,
        tokens=tokens,
        trace=trace,
        cut=choice.finish_reason == "length",
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens or len(tokens),
    )


def _tokens(logprobs: _Logprobs | None) -> tuple[Token, ...]:
    if logprobs is None or not logprobs.content:
        raise _unusable("no_logprobs", "the answer has no logprobs")
    tokens, start = [], 0
    for each in logprobs.content:
        own = _bytes(each)
        others, seen = [], False
        for other in each.top_logprobs:
            text = _bytes(other)
            if text == own and not seen and abs(other.logprob - each.logprob) < 1e-6:
                seen = True  # the token itself; another one of the same bytes is an alternative
            else:
                others.append((text, _checked(other.logprob)))
        tokens.append(Token(start, own, _checked(each.logprob), tuple(others)))
        start += len(own)
    return tuple(tokens)


def _bytes(each: _Alternative) -> bytes:
    if each.bytes:
        try:
            return bytes(each.bytes)
        except ValueError as error:
            raise _unusable("no_logprobs", "the bytes of a token are none") from error
    return each.token.encode("utf-8", "surrogateescape")


def _checked(logprob: float) -> float:
    if math.isnan(logprob) or logprob > 1e-3:
        raise Undecided(UndecidedReason.NOT_FINITE, detail="a logprob is no log-probability")
    return min(logprob, 0.0)


def _unusable(kind: str, detail: str) -> Failure:
    return Failure(Meaning.REFUSED, kind, reason=UndecidedReason.MALFORMED_OUTPUT, detail=detail)
