"""From an answer to labels with scores, names with scores, and places where the floor may stand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from worker.codes import UndecidedReason
from worker.contracts.verdict import Label
from worker.errors import Undecided
from worker.guard.answer import label_match, line_match, split_categories, split_trace
from worker.judge.remote.client import Failure, Meaning
from worker.judgement import CategoryScore, Rubric, Side

# A chat completion as it comes over the wire, and as tokens with their probabilities.


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


# P(unsafe) of a label that was written, from the alternatives listed at its tokens.
#
# ::
#
#     User Safety:| safe            safe -0.02,  unsafe -4.1                one token a label
#     User Safety:| |un|safe        at `un`:  s -0.7, un -0.7               split, blank by itself
#
# At every token between the colon and the label's first letter each alternative that goes on with
# ``safe`` or ``unsafe`` counts for it, times the probability of having got there. The score is the
# share of ``unsafe`` in both.

_SLACK = 0.02
"""How far a written label may lie on the wrong side of one half: servers round."""


def score_label(answer: Answer, colon: int, label: int, written: Label) -> Side:
    """The side whose label begins at byte ``label`` of ``answer.spelled``, behind a colon's end.

    A label that is not among the alternatives gets the most it can have if it is ``unsafe``, and
    nothing if it is ``safe``.

    Raises:
        Undecided: the label that was written is not the likelier one, or no alternatives came.
    """
    blank = answer.spelled[colon:label]
    mass = {"safe": 0.0, "unsafe": 0.0}
    unlisted, reached, listed = 0.0, 1.0, False
    for token in answer.tokens:
        if token.end <= colon or token.start > label:
            continue
        listed = listed or bool(token.others)
        for text, logprob in ((token.text, token.logprob), *token.others):
            kind = _continues(text, token, colon, blank, answer.spelled)
            if kind is not None:
                mass[kind] += reached * math.exp(logprob)
        unlisted = max(unlisted, reached * token.unlisted())
        reached *= math.exp(token.logprob)
    if not listed or mass[written] == 0.0:
        raise Undecided(UndecidedReason.MALFORMED_OUTPUT, detail="no alternatives to the label")
    unsafe = mass["unsafe"] or unlisted
    score = unsafe / (unsafe + mass["safe"]) if unsafe + mass["safe"] > 0.0 else 1.0
    likelier = score if written == "unsafe" else 1.0 - score
    if likelier < 0.5 - _SLACK:
        raise Undecided(
            UndecidedReason.MALFORMED_OUTPUT, detail="the label written is not the likelier one"
        )
    if written == "unsafe":
        score = max(score, 0.5)  # between two equal labels, unsafe is the one that counts
    return Side(label="unsafe" if score >= 0.5 else "safe", score=score)


def _continues(text: bytes, token: Token, colon: int, blank: bytes, spelled: bytes) -> Label | None:
    """Which label an alternative at a token's place goes on with; None for neither, or not yet."""
    before = spelled[colon : token.start]  # empty where the token begins with or before the colon
    inside = max(0, colon - token.start)
    if text[:inside] != token.text[:inside]:
        return None
    path = before + text[inside:]
    labels: tuple[Label, Label] = ("unsafe", "safe")
    for label in labels:
        target = blank + label.encode()
        if len(path) > len(blank) and _agree(path.lower(), target):
            return label
    return None


def _agree(path: bytes, target: bytes) -> bool:
    """Whether one begins with the other, and no letter follows the label."""
    if len(path) <= len(target):
        return target.startswith(path)
    return path.startswith(target) and not path[len(target) :][:1].isalnum()


# How likely the floor's name could have been written, from the alternatives in one answer.
#
# The category line may have gone on with the floor's name at its beginning and behind every name in
# it. At each such place the name is followed as far as the line itself spells it; where the two
# part,
# the likeliest alternative that still fits is the most that the name can have::
#
#     Safety Categories:| Harass|ment            Sexual 0.20 stood beside ` Harass`: at most 0.20
#     Safety Categories:| Sexual|<end of turn>   ` (` 0.03 stood beside the end: at most 0.9 x 0.03
#
# A bound below the floor's threshold settles the question. Where one does not, the token that keeps
# it open is known (``Open``), and the judge asks again with that token preferred.

Spelling = Sequence[bytes]
"""The tokens that spell a text, in order."""


@dataclass(frozen=True)
class Place:
    """Where the floor's name may stand: byte ``start`` of the answer, and how it is spelled there.

    ``spelling`` is empty where the server's tokenizer is not known: then ``text`` alone counts.
    """

    start: int
    text: bytes
    spelling: Spelling = ()


@dataclass(frozen=True)
class Open:
    """What keeps a bound open: ``token`` might have been written at byte ``at``, ``gap`` less
    likely (in log-probability) than what was."""

    at: int
    token: bytes
    gap: float


@dataclass(frozen=True)
class Bound:
    """The most that the floor's name can have at a place; ``spelled`` is what it surely has.

    ``open`` is None where nothing more can be found out by asking for a listed token.
    """

    most: float
    spelled: float = 0.0
    open: Open | None = None


def bound(answer: Answer, place: Place, reached: float = 1.0) -> Bound:
    """Follow the floor's name from a place; ``reached`` is the probability of having got there."""
    rest, index = place.text, 0
    most, opened, probability = 0.0, None, reached
    for token in answer.tokens:
        if token.end <= place.start:
            continue
        if token.start < place.start and not rest.startswith(
            token.text[place.start - token.start :]
        ):
            return Bound(most, 0.0, opened)  # one token spells the place's end and something else
        own = token.text[max(0, place.start - token.start) :]
        expected = place.spelling[index] if index < len(place.spelling) else None
        fitting = [
            (text, logprob)
            for text, logprob in token.others
            if (text == expected if expected is not None else text and _fits(text, rest))
        ]
        unlisted = token.unlisted() if own != expected else 0.0
        best = max((math.exp(logprob) for _, logprob in fitting), default=unlisted)
        if probability * best > most:
            most, opened = probability * best, None
            if fitting:
                text, logprob = max(fitting, key=lambda each: each[1])
                opened = Open(token.start, text, token.logprob - logprob)
        probability *= math.exp(token.logprob)
        if not own or not rest.startswith(own):
            if own and own.startswith(rest) and not own[len(rest) : len(rest) + 1].isalnum():
                return Bound(max(most, probability), probability, None)
            return Bound(most, 0.0, opened)
        rest, index = rest[len(own) :], index + 1
        if not rest:
            return Bound(max(most, probability), probability, None)
    # The answer ends here, and nothing says what else might have followed.
    return Bound(max(most, probability), 0.0, None)


def _fits(text: bytes, rest: bytes) -> bool:
    return rest.startswith(text) or text.startswith(rest)


def places(line: int, ends: Sequence[int], first: Spelling, further: Spelling) -> Iterator[Place]:
    """The beginning of the line (byte behind its colon), and the end of each name in it."""
    yield Place(line, b" Sexual (minor)", first)
    for end in ends:
        yield Place(end, b", Sexual (minor)", further)


@dataclass(frozen=True)
class Line:
    """A category line: its names, the byte behind its colon, and where each name ends.

    ``complete`` is False where the budget cut it off.
    """

    categories: tuple[CategoryScore, ...]
    start: int
    ends: tuple[int, ...]
    complete: bool


@dataclass(frozen=True)
class Sides:
    """Both labels as they were written, and the category line behind them, if there is one."""

    user: Side
    response: Side | None
    line: Line | None

    @property
    def written_unsafe(self) -> bool:
        return "unsafe" in (self.user.label, self.response.label if self.response else None)

    @property
    def chance(self) -> float:
        """P(unsafe) of the side the model thinks worse of."""
        return max(self.user.score, self.response.score if self.response else 0.0)


def read_sides(answer: Answer, *, response: bool, rubric: Rubric) -> Sides:
    """Read labels and category line; ``response`` says whether a response was sent.

    Raises:
        Undecided: a label is missing, or has no score; the detail never quotes the text.
    """
    start = answered_from(answer)
    user = _side(answer, start, "User Safety")
    answered = _side(answer, start, "Response Safety") if response else None
    sides = Sides(user, answered, None)
    if not sides.written_unsafe:
        return sides
    return Sides(user, answered, _line(answer, start, rubric))


def read_line(answer: Answer, *, response: bool, rubric: Rubric) -> Line | None:
    """The category line of an answer whose labels were preferred; None where there is none.

    The labels must be there, and one of them unsafe; their scores are those of the first answer.
    """
    start = answered_from(answer)
    try:
        fields = ("User Safety", "Response Safety") if response else ("User Safety",)
        labels = {label_match(answer.text[start:], field)[1].lower() for field in fields}
    except Undecided:
        return None
    return _line(answer, start, rubric) if "unsafe" in labels else None


def answered_from(answer: Answer) -> int:
    """Character of the text at which the answer proper begins, behind a trace.

    Raises:
        Undecided: a trace was opened and never closed.
    """
    _, rest = split_trace(answer.text)
    return len(answer.text) - len(rest)


def _side(answer: Answer, start: int, field: str) -> Side:
    match = label_match(answer.text[start:], field)
    colon = match[0].index(":") + 1 + match.start()
    written: Label = "unsafe" if match[1].lower() == "unsafe" else "safe"
    label = answer.place(start + match.start(1))
    return score_label(answer, answer.place(start + colon), label, written)


def _line(answer: Answer, start: int, rubric: Rubric) -> Line | None:
    match = line_match(answer.text[start:], "Safety Categories")
    if match is None:
        return None
    first = start + match.start(1)
    categories, ends = [], []
    for named in split_categories(match[1].rstrip(), rubric):
        begin, end = answer.place(first + named.start), answer.place(first + named.end)
        categories.append(CategoryScore(name=named.name, score=_probability(answer, begin, end)))
        ends.append(end)
    cut = answer.cut and start + match.end() == len(answer.text)
    return Line(tuple(categories), answer.place(first), tuple(ends), not cut)


def _probability(answer: Answer, begin: int, end: int) -> float:
    """Product over the tokens that touch the bytes of a name."""
    return math.exp(
        sum(each.logprob for each in answer.tokens if each.start < end and each.end > begin)
    )


def unclosed(answer: Answer) -> bool:
    """Whether a trace was begun and its end never written."""
    if answer.trace is not None:
        return not answer.text and answer.cut
    try:
        split_trace(answer.text)
    except Undecided as error:
        return error.reason is UndecidedReason.MALFORMED_OUTPUT
    return False
