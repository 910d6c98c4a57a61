"""The rendered prompt in the parts training packs: policy prefix, event, closing.

``prefix + event + closing`` is, character for character, what ``chat_template.jinja`` renders and
the processor expands; the tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moderation_tools.training.tiny import constants as text
from moderation_tools.training.tiny.cases import Case
from moderation_tools.training.tiny.model import IMAGE_TOKENS

_IMAGE = f"\n\n<start_of_image>{'<image_soft_token>' * IMAGE_TOKENS}<end_of_image>\n\n"
TURN_CLOSE = "<end_of_turn>"
_MODEL_TURN = f"{TURN_CLOSE}\n<start_of_turn>model\n"


def prefix_text(kwargs: Mapping[str, Any]) -> str:
    """Everything up to and including ``user:``; the same for all events of one rubric."""
    if policy := kwargs.get("custom_policy"):
        head = policy
    else:
        head = text.INTRO + (kwargs.get("custom_taxonomy") or text.TAXONOMY)
    return f"<bos><start_of_turn>user\n{head}{text.BEGIN}"


def event_text(case: Case) -> str:
    """The judged content, from the blank after ``user:`` to the end of the response."""
    shown = f" {_IMAGE}" if case.image is not None else " "
    said = f"{shown}{case.user.strip()}"
    return said if case.response is None else f"{said}{text.RESPONSE} {case.response.strip()}"


def closing_text(kwargs: Mapping[str, Any]) -> str:
    """The instructions after the content, up to where the model starts to write."""
    listed = text.FORMAT_POLICY if kwargs.get("custom_policy") else text.FORMAT_TAXONOMY
    thinking = text.THINK if kwargs["enable_thinking"] else text.NO_THINK
    return (
        f"{text.END}{text.FORMAT_USER}{text.FORMAT_RESPONSE}{listed}{text.ONLY}"
        f"{text.NOTHING_ELSE}{kwargs['request_categories']}{thinking}{text.OUTPUT}{_MODEL_TURN}"
    )


def dense_closing(case: Case) -> str:
    """What stands between event and answer while the base is trained: what is asked for."""
    thinking = text.THINK if case.thinks else text.NO_THINK
    return f"{case.kwargs['request_categories']}{thinking}{text.OUTPUT}"


def dense_answer(case: Case) -> str:
    """The short answer of the base checkpoint: words found, where asked for; labels; categories.

    The base never sees the template's instructions nor its answer format; those are the adapter's.
    """
    said = ""
    if case.thinks:
        sides = (("picture", case.image_words), ("user", case.user_words))
        for side, found in (*sides, ("reply", case.response_words)):
            if found:
                said += f" {side} " + " and ".join(f'"{word}"' for word in found)
        said += f": {', '.join(case.categories)};" if case.categories else " clear;"
    said += f" {case.user_label}"
    if case.response_label is not None:
        said += f" {case.response_label}"
    if case.categories and case.kwargs["request_categories"] == text.CATEGORIES:
        said += f" {', '.join(case.categories)}"
    return said + TURN_CLOSE
