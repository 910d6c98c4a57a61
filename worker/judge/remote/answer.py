"""From an answer to labels with scores, names with scores, and places where the floor may stand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from unicodedata import normalize

import msgspec

from worker.codes import UndecidedReason
from worker.contracts.verdict import Label
from worker.errors import Undecided
from worker.guard.base import Answer as Parsed
from worker.guard.base import CategoryLine, GuardModel, SideName, WrittenLabel
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
    model: str | None = None
    system_fingerprint: str | None = None


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
    ``answered_by`` is the model and the build that the server says wrote it.
    """

    text: str
    spelled: bytes
    start: int
    tokens: tuple[Token, ...]
    trace: str | None
    cut: bool
    input_tokens: int
    output_tokens: int
    answered_by: tuple[str | None, str | None] = (None, None)

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
        answered_by=(completion.model, completion.system_fingerprint),
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
#     Safety:| safe            safe -0.02,  unsafe -4.1                one token a label
#     Safety:| |un|safe        at `un`:  s -0.7, un -0.7               split, blank by itself
#
# At every token up to the label's first letter each alternative that goes on with one of the labels
# counts for it, times the probability of having got there. Alternatives are folded first: white
# space in front of a label, capitals and compatible forms make no other label. One that is blank so
# far may still become either, and counts as unsafe. The score is the share of unsafe.

_SLACK = 0.02
"""How far a written label may lie on the wrong side of one half: servers round."""

_Kind = Literal["safe", "unsafe", "blank"]


def score_label(answer: Answer, opens: int, label: int, written: Label, guard: GuardModel) -> Side:
    """The side whose label begins at byte ``label`` of ``answer.spelled``, and may from ``opens``.

    A label that is not among the alternatives gets the most it can have if it is the unsafe one,
    and nothing if it is the safe one.

    Raises:
        Undecided: the label that was written is not the likelier one, or no alternatives came.
    """
    mass = {"safe": 0.0, "unsafe": 0.0}
    unlisted, reached, listed = 0.0, 1.0, False
    for token in answer.tokens:
        if token.end <= opens or token.start > label:
            continue
        listed = listed or bool(token.others)
        kind = _continues(token.text, token, opens, answer.spelled, guard)
        if kind == "safe" or kind == "unsafe":
            mass[kind] += reached * math.exp(token.logprob)
        for text, logprob in token.others:
            kind = _continues(text, token, opens, answer.spelled, guard)
            if kind is not None:
                mass["safe" if kind == "safe" else "unsafe"] += reached * math.exp(logprob)
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


def _continues(
    text: bytes, token: Token, opens: int, spelled: bytes, guard: GuardModel
) -> _Kind | None:
    """Which label an alternative at a token's place goes on with; None for neither."""
    before = spelled[opens : token.start]  # empty where the token begins with or before the place
    inside = max(0, opens - token.start)
    if text[:inside] != token.text[:inside]:
        return None
    path = _folded(before + text[inside:])
    if not path:
        return "blank"
    # The unsafe label first: where both may follow, it is the one that counts.
    if _agree(path, _folded(guard.spelling.unsafe.encode()), letters=str.isalnum):
        return "unsafe"
    if _agree(path, _folded(guard.spelling.safe.encode()), letters=_visible):
        return "safe"
    return None


def _folded(path: bytes) -> str:
    """What can be read of it, in compatible forms and small letters, without white space before."""
    text = path.decode("utf-8", "ignore")
    return (text if text.isascii() else normalize("NFKC", text)).casefold().lstrip()


def _visible(character: str) -> bool:
    return not character.isspace()


def _agree(path: str, label: str, letters: Callable[[str], bool]) -> bool:
    """Whether one begins with the other, and nothing follows that makes the label another word."""
    if len(path) <= len(label):
        return label.startswith(path)
    return path.startswith(label) and not letters(path[len(label)])


# How likely the floor's name could have been written, from the alternatives in one answer.
#
# The category line may have gone on with the floor's name at its beginning and behind every name in
# it. At each such place the name is followed as far as the line itself spells it; where the two
# part, the likeliest alternative that still fits is the most that the name can have::
#
#     Categories:| Harass|ment            ` Sexual` 0.20 stood beside ` Harass`: at most 0.20
#     Categories:| Sexual|<end of turn>   ` (` 0.03 stood beside the end: at most 0.9 x 0.03
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
            if (text == expected if expected is not None else _fits(text, rest))
        ]
        unlisted = token.unlisted() if own != expected else 0.0
        # Of a known tokenizer one token fits; of another one all that might go on to the name.
        best = sum(math.exp(logprob) for _, logprob in fitting) if fitting else unlisted
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
    """Whether an alternative may be, or become, the rest of a name, in any white space and form."""
    one, other = _folded(text), _folded(rest)
    return other.startswith(one) or one.startswith(other)


def places(
    line: int, ends: Sequence[int], guard: GuardModel, first: Spelling, further: Spelling
) -> Iterator[Place]:
    """The beginning of the line (byte behind its constant text), and the end of each name in it.

    ``first`` and ``further`` are how the server's tokenizer spells the floor's name at the one and,
    behind the usual separator, at the others.
    """
    spelling = guard.spelling
    yield Place(line, f"{spelling.first}{spelling.floor}".encode(), first)
    for end in ends:
        for number, separator in enumerate(spelling.separators):
            text = f"{separator}{spelling.floor}".encode()
            yield Place(end, text, further if number == 0 else ())


@dataclass(frozen=True)
class Line:
    """A category line: its names, the byte behind its constant text, and where each name ends.

    ``complete`` is False where the budget cut it off.
    """

    categories: tuple[CategoryScore, ...]
    start: int
    ends: tuple[int, ...]
    complete: bool


@dataclass(frozen=True)
class Labelled:
    """The labels of one answer as they were written, and the category line behind them, if any."""

    sides: Mapping[SideName, Side]
    line: Line | None

    @property
    def written_unsafe(self) -> bool:
        return any(each.label == "unsafe" for each in self.sides.values())

    @property
    def chance(self) -> float:
        """P(unsafe) of the side the model thinks worse of."""
        return max(each.score for each in self.sides.values())


def read_labels(
    answer: Answer, guard: GuardModel, labels: Sequence[SideName], rubric: Rubric
) -> Labelled:
    """Read the labels that were asked for, and the category line.

    Raises:
        Undecided: the answer is malformed, or has no scores; the detail never quotes the text.
    """
    parsed = guard.parse(answer.text, labels, rubric)
    sides = {
        name: _side(answer, label, guard) for name, label in zip(labels, parsed.labels, strict=True)
    }
    return Labelled(sides, _line(answer, parsed, guard))


def read_line(
    answer: Answer, guard: GuardModel, labels: Sequence[SideName], rubric: Rubric
) -> Line | None:
    """The category line of an answer whose labels were preferred; None where there is none.

    The labels must be there, and one of them unsafe; their scores are those of the first answer.
    """
    try:
        parsed = guard.parse(answer.text, labels, rubric)
    except Undecided:
        return None
    return _line(answer, parsed, guard)


def unsafe_end(
    answer: Answer, guard: GuardModel, labels: Sequence[SideName], rubric: Rubric
) -> int | None:
    """The byte behind the last label, where its line would begin; None of an answer that has one
    already, is safe, or cannot be read."""
    try:
        parsed = guard.parse(answer.text, labels, rubric)
    except Undecided:
        return None
    if parsed.line is not None or not parsed.unsafe:
        return None
    return answer.place(parsed.labels[-1].end)


def answered_from(answer: Answer, guard: GuardModel) -> int:
    """Character of the text at which the answer proper begins, behind a trace.

    Raises:
        Undecided: a trace was opened and never closed.
    """
    _, rest = guard.split_trace(answer.text)
    return len(answer.text) - len(rest)


def _side(answer: Answer, label: WrittenLabel, guard: GuardModel) -> Side:
    # White space in front of a whole answer is cut off its text, but a label might stand in it.
    first = label.opens == 0 and answer.trace is None
    opens = 0 if first else answer.place(label.opens)
    return score_label(answer, opens, answer.place(label.start), label.label, guard)


def _line(answer: Answer, parsed: Parsed, guard: GuardModel) -> Line | None:
    if parsed.line is None:
        return None
    line: CategoryLine = parsed.line
    categories, ends = [], []
    for named in line.names:
        begin, end = answer.place(named.start), answer.place(named.end)
        score = _probability(answer, begin, end)
        if guard.spelling.open_ended:
            score *= _ends(answer, end)
        categories.append(CategoryScore(name=named.name, score=score))
        ends.append(end)
    cut = answer.cut and line.end == len(answer.text)
    return Line(tuple(categories), answer.place(line.start), tuple(ends), not cut)


def _probability(answer: Answer, begin: int, end: int) -> float:
    """Product over the tokens that touch the bytes of a name."""
    return math.exp(
        sum(each.logprob for each in answer.tokens if each.start < end and each.end > begin)
    )


def _ends(answer: Answer, end: int) -> float:
    """The probability that a name ends at a byte where a token begins, and no digit follows."""
    token = next((each for each in answer.tokens if each.start == end), None)
    if token is None:
        return 1.0
    listed = ((token.text, token.logprob), *token.others)
    longer = sum(math.exp(logprob) for text, logprob in listed if text[:1].isdigit())
    return max(0.0, 1.0 - longer)
