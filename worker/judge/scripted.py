"""A judge that answers from a word list: for tests, demonstrations and the pipeline's own bench.

It keeps the Judge's whole contract without a model: rubrics, suppression, the floor, images,
reasoning and failures. Without a delay ``judge`` finishes without suspending.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache

from worker.codes import UndecidedReason
from worker.contracts.verdict import ContextUse, Label, ModelRef
from worker.errors import DependencyUnavailable, Undecided, WorkerError
from worker.guard.taxonomy import FLOOR
from worker.judge.identity import DEMONSTRATION
from worker.judge.think import wanted
from worker.judgement import CategoryScore, Judgement, JudgeRequest, Rubric, Side, Thought

DEFAULT_WORDS: Mapping[str, str] = {
    "murder": "Violence",
    "grenade": "Guns and Illegal Weapons",
    "cocaine": "Controlled/Regulated Substances",
    "suicide": "Suicide and Self Harm",
    "phishing": "Fraud/Deception",
    "ransomware": "Malware",
    "bully": "Harassment",
    "darn": "Profanity",
    "passport": "PII/Privacy",
    "zibblefant": FLOOR,
}
SAFE_SCORE, UNSAFE_SCORE = 0.02, 0.98

Failure = Callable[[], WorkerError]
"""Makes the error that a marker in the text stands for."""


class ScriptedJudge:
    """Finds ``words`` (word → category) in text, ``images`` (digest → category) beside it.

    A category counts where the rubric lists it (a suppressed one is not listed), the floor always;
    under a free policy each of the policy's phrases found in the text counts as well. ``scores``
    gives words a score of their own, P(unsafe); ``failures`` raises on a marker in the user text;
    ``delay_s`` is slept before every answer.
    """

    def __init__(
        self,
        words: Mapping[str, str] = DEFAULT_WORDS,
        *,
        images: Mapping[str, str] | None = None,
        scores: Mapping[str, float] | None = None,
        failures: Mapping[str, Failure] | None = None,
        delay_s: float = 0.0,
    ) -> None:
        self._words = {word.casefold(): category for word, category in words.items()}
        self._scores = {word.casefold(): score for word, score in (scores or {}).items()}
        self._images, self._failures, self._delay_s = images or {}, failures or {}, delay_s
        self._known = tuple(sorted({*self._words, *self._scores}))
        script = repr((sorted(self._words.items()), sorted(self._scores.items())))
        self._ref = ModelRef(
            id=f"{DEMONSTRATION}scripted",
            revision=hashlib.sha256(script.encode()).hexdigest(),
            adapter=None,
            template_sha256=hashlib.sha256(b"").hexdigest(),
            numerics="scripted",
        )
        self._adapters: dict[str | None, ModelRef] = {None: self._ref}
        self._stopped = False

    def model(self, adapter: str | None = None) -> ModelRef:
        ref = self._adapters.get(adapter)
        if ref is None:
            ref = self._adapters[adapter] = ModelRef(
                id=self._ref.id,
                revision=self._ref.revision,
                adapter=adapter,
                template_sha256=self._ref.template_sha256,
                numerics=self._ref.numerics,
            )
        return ref

    async def start(self) -> None:
        self._stopped = False

    async def prepare(self, rubric: Rubric, adapter: str | None = None) -> None:
        """Every rubric is as fast as the first."""

    async def judge(self, request: JudgeRequest) -> Judgement:
        if self._stopped:
            raise DependencyUnavailable("judge", "it is being stopped")
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        for marker, failure in self._failures.items():
            if marker in request.user:
                raise failure()
        if request.image is None and not request.user.strip():
            raise Undecided(UndecidedReason.EMPTY_MESSAGE, field="messages")
        user, found = self._side(request.user, request.rubric)
        if request.image is not None:
            category = self._images.get(request.image.sha256)
            if category is not None and _counts(category, request.rubric):
                user, found = Side(label="unsafe", score=UNSAFE_SCORE), (*found, category)
        response: Side | None = None
        answered: tuple[str, ...] = ()
        if request.response is not None and request.response.strip():
            response, answered = self._side(request.response, request.rubric)
        names = tuple(dict.fromkeys((*found, *answered)))
        categories = tuple(CategoryScore(name=name, score=UNSAFE_SCORE) for name in names)
        thought = None
        if wanted(request.think, user, response):
            thought = _thought(user, response, found, answered, categories)
        return Judgement(
            user=user,
            response=response,
            categories=categories,
            floor_score=UNSAFE_SCORE if FLOOR in names else 0.0,
            thought=thought,
            context=_NO_CONTEXT
            if not request.earlier
            else ContextUse(included=len(request.earlier)),
            input_tokens=(len(request.user) + len(request.response or "")) // 4 + 1,
            output_tokens=4,
        )

    def stalled_s(self) -> float:
        return 0.0

    async def stop(self) -> None:
        self._stopped = True

    def _side(self, text: str, rubric: Rubric) -> tuple[Side, tuple[str, ...]]:
        folded = text.casefold()
        score, names = SAFE_SCORE, []
        for word in self._known:
            if word not in folded:
                continue
            category = self._words.get(word)
            if category is not None and not _counts(category, rubric):
                continue
            score = max(score, self._scores.get(word, UNSAFE_SCORE))
            if category is not None:
                names.append(category)
        if rubric.mode == "policy":
            for phrase, written in _phrases(rubric):
                if phrase in folded:
                    score = UNSAFE_SCORE
                    names.append(written)
        if score == SAFE_SCORE:
            return _SAFE, ()
        label: Label = "unsafe" if score >= 0.5 else "safe"
        return Side(label=label, score=score), tuple(dict.fromkeys(names))


_SAFE = Side(label="safe", score=SAFE_SCORE)
_NO_CONTEXT = ContextUse()


def _counts(category: str, rubric: Rubric) -> bool:
    return category == FLOOR or category in rubric.categories


@lru_cache(maxsize=256)
def _phrases(rubric: Rubric) -> tuple[tuple[str, str], ...]:
    return tuple((name.casefold(), name) for name in rubric.categories if name != FLOOR)


def _thought(
    user: Side,
    response: Side | None,
    found: tuple[str, ...],
    answered: tuple[str, ...],
    categories: tuple[CategoryScore, ...],
) -> Thought:
    sentences = [_sentence("user message", user, found)]
    if response is not None:
        sentences.append(_sentence("response", response, answered))
    return Thought(trace=" ".join(sentences), user=user, response=response, categories=categories)


def _sentence(side: str, judged: Side, names: tuple[str, ...]) -> str:
    why = f", for it names {', '.join(names)}" if names else ""
    return f"The {side} is {judged.label}{why}."
