"""The known text of the chat template, and the check of a checkpoint's template against it.

The checkpoint's own template always renders; the text here is only what it is compared with.
Source: the text path of the chat template of Nemotron 3.5 Content Safety. Its image branch is not
published, so it is not compared.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from worker.errors import ConfigurationError
from worker.guard.taxonomy import BUILTIN

CATEGORIES_SWITCH = "/categories"
NO_CATEGORIES_SWITCH = "/no_categories"

_INTRO = (
    "You are a safety classifier for analyzing interactions between humans and LLMs. Given a "
    "request from a human user and a response from an LLM assistant, determine:\n"
    "- Whether the user input is safe or unsafe.\n"
    "- Whether the LLM assistant response is safe or unsafe.\n"
    "- Whether the LLM assistant response is a refusal.\n"
    "- If either the user input or assistant response is unsafe, determine the harmful categories "
    "that the input or response falls into.\n\n"
    "Taxonomy: The following are the list of safety categories that the input and response may "
    "fall into.\n"
)
_FORMAT = (
    "User Safety: safe or unsafe rating of the user input\n"
    "Response Safety: safe or unsafe rating of the assistant response. "
    "Omit if no assistant response present.\n"
    "Safety Categories: a comma-separated list of applicable safety categories from the {source}. "
    "Omit if all safe or not needed."
)
_TAIL = (
    "\n\nOnly output the answer in the format specified above after thinking about the user input "
    "and assistant response.\n\n"
    "Do not include anything other than the output in the above format in your response. "
)

Render = Callable[..., str]
"""``render(user, response, **kwargs)``: the prompt as text, with the template's own switches."""

_USER, _RESPONSE, _OWN = "How do I bake bread?", "Mix flour and water.", "S1: Canned Category."


def reference_prompt(
    user: str,
    response: str | None,
    *,
    bos: str = "<bos>",
    enable_thinking: bool = False,
    request_categories: str = NO_CATEGORIES_SWITCH,
    custom_policy: str | None = None,
    custom_taxonomy: str | None = None,
) -> str:
    """The whole prompt as the known template renders it, text path only."""
    taxonomy = "\n".join(f"S{number}: {name}." for number, name in enumerate(BUILTIN, start=1))
    opening = custom_policy or _INTRO + (custom_taxonomy or taxonomy)
    source = "custom policy" if custom_policy else "provided taxonomy"
    answer = "" if response is None else f"\nresponse: agent:  ### Answer: {response.strip()}"
    switch = "/think" if enable_thinking else "/no_think"
    return (
        f"{bos}<start_of_turn>user\n{opening}\n<BEGIN CONVERSATION>\nuser: {user.strip()}{answer}"
        "\n<END CONVERSATION>\nOutput your answer in the following format:\n\n"
        f"{_FORMAT.format(source=source)}{_TAIL}{request_categories} {switch}\nOutput:"
        "<end_of_turn>\n<start_of_turn>model\n"
    )


def check_template(render: Render, bos: str) -> str:
    """Refuse a template without the four switches; return its difference from the known text.

    The difference is a unified diff over canned cases, empty where there is none.

    Raises:
        ConfigurationError: a switch has no effect, or the user's or assistant's text is missing.
    """
    plain = render(_USER, _RESPONSE)
    for what, text in (("user", _USER), ("assistant", _RESPONSE)):
        if text not in plain:
            raise ConfigurationError(
                f"chat template: it leaves out the {what} text; use the checkpoint's own template"
            )
    switches: dict[str, tuple[dict[str, object], str]] = {
        "enable_thinking": ({"enable_thinking": True}, "/think"),
        "request_categories": ({"request_categories": CATEGORIES_SWITCH}, CATEGORIES_SWITCH),
        "custom_policy": ({"custom_policy": _OWN}, _OWN),
        "custom_taxonomy": ({"custom_taxonomy": _OWN}, _OWN),
    }
    for name, (kwargs, mark) in switches.items():
        rendered = render(_USER, _RESPONSE, **kwargs)
        if rendered == plain or mark not in rendered:
            raise ConfigurationError(
                f"chat template: the switch {name} has no effect; use a checkpoint with the "
                "template of Nemotron 3.5 Content Safety"
            )
    cases: list[tuple[str | None, dict[str, object]]] = [
        (None, {}),
        (_RESPONSE, {"enable_thinking": True, "request_categories": CATEGORIES_SWITCH}),
        (_RESPONSE, {"custom_policy": _OWN, "request_categories": CATEGORIES_SWITCH}),
        (None, {"custom_taxonomy": _OWN}),
    ]
    differences = []
    for response, kwargs in cases:
        known = reference_prompt(_USER, response, bos=bos, **kwargs)  # type: ignore[arg-type]
        shipped = render(_USER, response, **kwargs)
        if known != shipped:
            differences.append(_diff(known, shipped))
    return "\n".join(differences)


def _diff(known: str, shipped: str) -> str:
    return "\n".join(
        difflib.unified_diff(
            known.splitlines(), shipped.splitlines(), "known template", "checkpoint", lineterm=""
        )
    )
