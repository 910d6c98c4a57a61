"""Settings and comparisons for judges that ask a server."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from moderation_tools.training.tiny.cases import Case, generate
from moderation_tools.training.tiny.evaluate import FIRST_HELD_OUT_SEED
from tests.support.openai_server import OpenAIServer
from worker.errors import Undecided
from worker.guard.nemotron35 import BUILTIN, FLOOR
from worker.images import JudgeImage
from worker.judgement import Judgement, JudgeRequest, Rubric, ThinkPlan
from worker.policy.floor import FLOOR_THRESHOLD
from worker.settings import JudgeSettings

BORDER = 0.02
"""Scores this near to one half may be labelled either way by numbers of another kind."""


def remote_settings(
    server: OpenAIServer,
    *,
    think_lane: object = 64,
    think_tokens_per_s: object = 0,
    **remote: object,
) -> JudgeSettings:
    """Settings with short waits; ``remote`` stands over them."""
    quick: dict[str, object] = {
        "base_url": server.url,
        "timeout_s": 2.0,
        "retry_initial_s": 0.01,
        "retry_max_s": 0.5,
        "start_timeout_s": 1.0,
    }
    return JudgeSettings.model_validate(
        {
            "backend": "remote",
            "think_lane": think_lane,
            "think_tokens_per_s": think_tokens_per_s,
            "remote": quick | remote,
        }
    )


def held_out(kind: str, count: int, seed: int = 0) -> list[JudgeRequest]:
    """Held-out cases of the demonstration checkpoint (one of its ``KINDS``) as requests."""
    return [_request(case) for case in generate(FIRST_HELD_OUT_SEED + seed, count, kind)]


def _request(case: Case) -> JudgeRequest:
    text = case.kwargs.get("custom_policy") or case.kwargs.get("custom_taxonomy")
    names = tuple(dict.fromkeys((*(name for _, name in case.calls), FLOOR)))
    mode = "policy" if case.kwargs.get("custom_policy") else "taxonomy" if text else "builtin"
    image = None
    if case.image is not None:
        drawn = case.image.draw().convert("RGB")
        rgb = drawn.tobytes()
        digest = hashlib.sha256(rgb).hexdigest()
        image = JudgeImage(sha256=digest, width=drawn.width, height=drawn.height, rgb=rgb)
    return JudgeRequest(
        user=case.user,
        response=case.response,
        image=image,
        rubric=Rubric(
            mode=mode,  # type: ignore[arg-type]
            text=text,
            categories=names if text else BUILTIN,
            sha256="",
        ),
        think=ThinkPlan(when="always" if case.thinks else "never", deadline_s=120.0),
    )


@dataclass
class Agreement:
    """How far two judges agree about the same requests; ``scores`` are differences.

    ``unsettled`` counts category lines that the second judge does not let suppression clear, though
    the first one does; ``undecided`` what either judge could not decide.
    """

    count: int = 0
    labels: int = 0
    categories: int = 0
    floor: int = 0
    traces: int = 0
    thoughts: int = 0
    unsettled: int = 0
    undecided: int = 0
    scores: list[float] = field(default_factory=list)
    differing: list[int] = field(default_factory=list)

    @property
    def furthest(self) -> float:
        return max(self.scores, default=0.0)


def compare(
    one: Sequence[Judgement | Undecided], other: Sequence[Judgement | Undecided]
) -> Agreement:
    """Judgement by judgement: labels, names in order, the floor, traces and scores."""
    found = Agreement(count=len(one))
    for index, (a, b) in enumerate(zip(one, other, strict=True)):
        if isinstance(a, Undecided) or isinstance(b, Undecided):
            found.undecided += 1
            found.differing.append(index)
            continue
        gaps = [abs(a.user.score - b.user.score)]
        if a.response and b.response:
            gaps.append(abs(a.response.score - b.response.score))
        found.scores += gaps
        same = _labels(a) == _labels(b)
        cut = not a.categories_complete and not b.categories_complete  # budgets differ
        named = cut or [c.name for c in a.categories] == [c.name for c in b.categories]
        found.unsettled += a.categories_complete and not b.categories_complete
        found.labels += same
        found.categories += named
        found.floor += (a.floor_score >= FLOOR_THRESHOLD) == (b.floor_score >= FLOOR_THRESHOLD)
        if a.thought is not None and b.thought is not None:
            found.thoughts += 1
            found.traces += (a.thought.trace, a.thought.skipped) == (
                b.thought.trace,
                b.thought.skipped,
            )
        if not (same and named):
            found.differing.append(index)
    return found


def _labels(judgement: Judgement) -> tuple[str, str | None]:
    response = judgement.response
    return judgement.user.label, response.label if response else None
