"""How many tokens each policy takes in front of its events, without loading any weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.contracts.verdict import ModelRef
from worker.errors import ConfigurationError
from worker.guard.base import GuardModel
from worker.guard.registry import FAMILIES
from worker.judge.identity import template_digest
from worker.judge.local.label_scores import answer_tokens
from worker.judge.local.loading import (
    Checkpoint,
    Source,
    encoder,
    read_config,
    read_words,
)
from worker.judge.local.prompt import Prompter
from worker.judgement import Rubric

STOCK = 320
"""Assumed tokens of the stock prompt in front of an event, where there is no tokenizer to ask."""
CHARACTERS = 3
"""Assumed characters of a token of a policy's text, likewise; on the safe side for English."""


@dataclass(frozen=True)
class _NoWeights:
    """Stands where a checkpoint has its model: a prompter asks for its settings alone."""

    config: Any


def config_of(source: Source) -> tuple[Any, bool]:
    """The checkpoint's ``Gemma3Config``, and whether it was read rather than known.

    Raises:
        ConfigurationError: it is neither on this machine nor of a known shape.
    """
    try:
        return read_config(source), True
    except ConfigurationError:
        if not any(source.id in each.revisions for each in FAMILIES.values()):
            raise
        # Imported here: it is needed only where nothing was downloaded.
        from worker.judge.engine.shapes import config_4b

        return config_4b(), False


def prefix_lengths(
    source: Source, config: Any, rubrics: Sequence[Rubric], guard: GuardModel
) -> list[int] | None:
    """Tokens of each rubric's prefix; None where the tokenizer is not on this machine."""
    try:
        processor, tokenizer, template = read_words(source, local=True)
    except ConfigurationError:
        return None
    checkpoint = Checkpoint(
        source=source,
        guard=guard,
        model=_NoWeights(config),
        processor=processor,
        tokenizer=tokenizer,
        template=template,
        answer=answer_tokens(encoder(tokenizer), (), guard),
        ref=ModelRef(
            id=source.id,
            revision="",
            adapter=None,
            template_sha256=template_digest(template, guard),
            numerics="",
        ),
        max_context=config.text_config.max_position_embeddings,
    )
    prompter = Prompter(checkpoint, context_budget=0)
    return [len(prompter.policy_ids(rubric)) for rubric in rubrics]


def estimated(rubric: Rubric) -> int:
    """The same without a tokenizer."""
    return STOCK + len(rubric.text or "") // CHARACTERS
