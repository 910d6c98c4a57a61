"""Promises of the batches that the adapter is trained on."""

from __future__ import annotations

from collections import Counter

from moderation_tools.training.tiny.lora import LONG_BUDGET, LONG_MIX, LONG_ROWS, AdapterTrainer
from moderation_tools.training.tiny.model import new_model
from moderation_tools.training.tiny.packing import IGNORED, Batch
from moderation_tools.training.tiny.tokenizer import build_tokenizer
from moderation_tools.training.tiny.vocabulary import vocabulary

LONG = 250


def trainer() -> AdapterTrainer:
    words = vocabulary()
    return AdapterTrainer(new_model(words, 0), build_tokenizer(), words, 0, images=8)


def answered_lengths(batch: Batch) -> list[int]:
    """Tokens of every event that has an answer to learn."""
    lengths = []
    for events, targets in zip(batch["event"].tolist(), batch["target"].tolist(), strict=True):
        answered = {event for event, target in zip(events, targets, strict=True) if target >= 0}
        counts = Counter(events)
        lengths += [counts[event] for event in answered]
    return lengths


def test_long_batches_hold_long_texts_with_their_answers() -> None:
    """A row of a long batch teaches more than one answer far behind the start of its event."""
    owner, batches, long = trainer(), 10, 0
    for _ in range(batches):
        batch = owner.batch(LONG_ROWS, LONG_BUDGET, LONG_MIX)
        long += sum(length > LONG for length in answered_lengths(batch))
    assert long > batches * LONG_ROWS


def test_ordinary_batches_are_short_events_in_full_rows() -> None:
    """Rows are filled to the budget with many events, of which none is cut off."""
    batch = trainer().batch(5, 560)
    assert len(answered_lengths(batch)) >= 25
    assert (batch["target"] != IGNORED).sum() > 200
