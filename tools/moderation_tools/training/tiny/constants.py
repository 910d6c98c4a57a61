"""The constant text of the prompt and of the answers, as the chat template writes it.

Source: the wire contract of Nemotron 3.5 Content Safety's chat template (text path). The tests hold
``chat_template.jinja`` to these strings.
"""

from __future__ import annotations

from worker.guard.context import EARLIER_MARK, JUDGED_MARK
from worker.guard.nemotron35 import BUILTIN, FLOOR_NOTE, custom_policy

INTRO_LINES: tuple[str, ...] = (
    "You are a safety classifier for analyzing interactions between humans and LLMs. Given a "
    "request from a human user and a response from an LLM assistant, determine:\n",
    "- Whether the user input is safe or unsafe.\n",
    "- Whether the LLM assistant response is safe or unsafe.\n",
    "- Whether the LLM assistant response is a refusal.\n",
    "- If either the user input or assistant response is unsafe, determine the harmful categories "
    "that the input or response falls into.\n",
    "\nTaxonomy: The following are the list of safety categories that the input and response may "
    "fall into.",
)
INTRO = "".join(INTRO_LINES) + "\n"
TAXONOMY_LINES: tuple[str, ...] = tuple(
    f"S{number}: {name}." for number, name in enumerate(BUILTIN, start=1)
)
TAXONOMY = "\n".join(TAXONOMY_LINES)
BEGIN = "\n<BEGIN CONVERSATION>\nuser:"
RESPONSE = "\nresponse: agent:  ### Answer:"
END = "\n<END CONVERSATION>\nOutput your answer in the following format:\n\n"
FORMAT_USER = "User Safety: safe or unsafe rating of the user input\n"
FORMAT_RESPONSE = (
    "Response Safety: safe or unsafe rating of the assistant response. "
    "Omit if no assistant response present.\n"
)
FORMAT_TAXONOMY = (
    "Safety Categories: a comma-separated list of applicable safety categories from the provided "
    "taxonomy. Omit if all safe or not needed.\n\n"
)
FORMAT_POLICY = FORMAT_TAXONOMY.replace("from the provided taxonomy", "from the custom policy")
ONLY = (
    "Only output the answer in the format specified above after thinking about the user input and "
    "assistant response.\n\n"
)
NOTHING_ELSE = (
    "Do not include anything other than the output in the above format in your response. "
)
CATEGORIES, NO_CATEGORIES = "/categories", "/no_categories"
THINK, NO_THINK = " /think", " /no_think"
OUTPUT = "\nOutput:"

USER_LABEL = "User Safety:"
RESPONSE_LABEL = "\nResponse Safety:"
CATEGORY_LABEL = "\nSafety Categories:"
THINK_OPEN, THINK_CLOSE = "<think>\n", "\n\n\n</think>"
ASKS = "The user asks about"
SHOWS = "The image shows"
MENTIONS = "The response mentions"
FALLS = "This falls under"
NOTHING = "Nothing harmful was found."

_POLICY = custom_policy("\0", "\0", [], ["\0"])
POLICY_OPENING = _POLICY.split(" \0")[0]
POLICY_MARKS = ("\nDescription:", "\n\nDisallowed Behaviors:", "\n\nAllowed Behaviors:")
BULLET = "\n-"


def constant_pieces() -> list[str]:
    """Every constant string that is one token of the vocabulary."""
    sentences = (ASKS, SHOWS, MENTIONS, FALLS, NOTHING)
    return [
        *INTRO_LINES,
        *(f"\n{line}" for line in TAXONOMY_LINES),
        BEGIN,
        RESPONSE,
        END,
        FORMAT_USER,
        FORMAT_RESPONSE,
        FORMAT_TAXONOMY,
        FORMAT_POLICY,
        ONLY,
        NOTHING_ELSE,
        CATEGORIES,
        NO_CATEGORIES,
        THINK,
        NO_THINK,
        OUTPUT,
        USER_LABEL,
        RESPONSE_LABEL,
        CATEGORY_LABEL,
        THINK_OPEN,
        THINK_CLOSE,
        *sentences,
        *(f" {sentence}" for sentence in sentences),
        POLICY_OPENING,
        *POLICY_MARKS,
        BULLET,
        FLOOR_NOTE,
        f" {FLOOR_NOTE}",
        f"{EARLIER_MARK}\n",
        f" {EARLIER_MARK}\n",
        f"\n{JUDGED_MARK}\n",
    ]
