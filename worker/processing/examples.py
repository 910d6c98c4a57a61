"""A policy's examples as events: what ``policy check --examples`` and a going-live policy run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from worker.contracts.event import Event, ImageRef, Message
from worker.contracts.verdict import ModelRef, SourceRef
from worker.media.local_files import SCHEME
from worker.policy.examples import ExampleOutcome, ExampleResult, check_examples
from worker.policy.model import Example, Policy
from worker.processing.evaluator import Evaluator

SOURCE = SourceRef(topic="examples", partition=0, offset=0, timestamp=0)
"""Examples come from no log; their verdicts are never published."""


class ExampleRunner:
    """Judges examples through the same evaluator as events."""

    def __init__(self, evaluator: Evaluator, model: ModelRef, family: str | None = None) -> None:
        """``family`` is what examples call the model where its id does not say it."""
        self._evaluator = evaluator
        self.model = model
        self.checkpoint = family or checkpoint_family(model)

    async def judge_example(self, policy: Policy, example: Example) -> ExampleOutcome:
        """One example judged under its policy."""
        evaluation = await self._evaluator.evaluate(as_event(policy, example), policy, SOURCE)
        decision = evaluation.decision
        sides = [side for side in (decision.user, decision.response) if side is not None]
        return ExampleOutcome(
            outcome=decision.outcome,
            categories=tuple(category.name for category in decision.categories),
            reason=decision.undecided_reason,
            score=max((side.score for side in sides), default=None),
            shed=decision.reasoning.skipped if decision.reasoning is not None else None,
        )

    async def check(self, policy: Policy) -> Sequence[ExampleResult]:
        """Every example of a policy, in order."""
        return await check_examples(policy, self.judge_example, checkpoint=self.checkpoint)


def checkpoint_family(model: ModelRef) -> str:
    """What ``checkpoint:`` of an example is compared with: the last part of the model's id."""
    return model.id.rstrip("/").rpartition("/")[2]


def as_event(policy: Policy, example: Example) -> Event:
    """An example as the event it stands for; its image lies beside the policy file."""
    images: tuple[ImageRef, ...] = ()
    if example.image is not None:
        path = (Path(policy.file).parent / example.image).absolute()
        images = (ImageRef(uri=f"{SCHEME}{path}"),)
    messages = [Message(role="user", text=example.text, images=images)]
    if example.response is not None:
        messages.append(Message(role="assistant", text=example.response))
    return Event(id="example", conversation_id=policy.name, messages=tuple(messages))
