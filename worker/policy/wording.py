"""Which text a policy may put in front of the model: plain words, no control strings.

A policy is trusted more than user content, so its control strings are refused where users' ones
are neutralised. The strings are the literals of the model's chat template and Gemma's own tokens.
"""

from __future__ import annotations

import re
import unicodedata

from worker.guard.context import EARLIER_MARK, JUDGED_MARK

CONTROL_STRINGS: tuple[str, ...] = (
    "<BEGIN CONVERSATION>",
    "<END CONVERSATION>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
    "<think>",
    "</think>",
    "<bos>",
    "<eos>",
    "<pad>",
    "<unk>",
    "<mask>",
    "[multimodal]",
    "response: agent:",
    "### Answer:",
    "### Policy",
    "Disallowed Behaviors:",
    "Allowed Behaviors:",
    "User Safety:",
    "Response Safety:",
    "Safety Categories:",
    EARLIER_MARK,
    JUDGED_MARK,
)

_SWITCH = re.compile(r"(?<![\w/])/(?:no_)?(?:think|categories)\b", re.IGNORECASE)
_UNUSED = re.compile(r"<unused\d+>", re.IGNORECASE)
_FOLDED = tuple("".join(each.split()).casefold() for each in CONTROL_STRINGS)


def tidy(text: str) -> str:
    """The text as one line in Unicode NFC: what is rendered, and what is hashed."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def fold(text: str) -> str:
    """The text as it is searched: compatibility forms, case and invisible characters removed."""
    visible = "".join(
        each for each in unicodedata.normalize("NFKC", text) if unicodedata.category(each) != "Cf"
    )
    return " ".join(visible.casefold().split())


def wording_problem(text: str) -> str | None:
    """Why a policy may not say this, or None."""
    for each in text:
        if unicodedata.category(each) in ("Cc", "Cs", "Co") and each not in "\t\n\r":
            return f"the control character U+{ord(each):04X} is not allowed"
    folded = "".join(fold(text).split())
    for shown, control in zip(CONTROL_STRINGS, _FOLDED, strict=True):
        if control in folded:
            return f"`{shown}` is a control string of the prompt template"
    switch = _SWITCH.search(text) or _UNUSED.search(fold(text))
    if switch:
        return f"`{switch[0]}` is a control string of the prompt template"
    return None
