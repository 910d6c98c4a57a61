"""The strings that steer the model, in one list with a use each.

A policy is trusted more than user content and shorter: it is refused where it holds one. In user
text they are sanitised (``worker.guard.sanitise``). Sources: the chat template of Nemotron 3.5
Content Safety, the added tokens of Gemma 3's tokenizer, and the fold of earlier turns.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from worker.guard.context import EARLIER_MARK, JUDGED_MARK


class ControlString(NamedTuple):
    """One string, and where it steers.

    ``token``: it is one token of the tokenizer; else text of the template. ``refused``: no policy
    may hold it. ``line``: it steers at the start of a line only. ``numbered``: its ``0`` stands for
    any number.
    """

    text: str
    token: bool = False
    refused: bool = True
    line: bool = False
    numbered: bool = False

    @property
    def name(self) -> str:
        """As verdicts and metrics name it."""
        return self.text.replace("0", "N") if self.numbered else self.text


CONTROL_STRINGS: Final[tuple[ControlString, ...]] = (
    *map(
        ControlString,
        (
            *("<BEGIN CONVERSATION>", "<END CONVERSATION>", "<think>", "</think>"),
            *("/think", "/no_think", "/categories", "/no_categories"),
            *("### Policy", "Disallowed Behaviors:", "Allowed Behaviors:", "### Answer:"),
            *("response: agent:", "User Safety:", "Response Safety:", "Safety Categories:"),
            *(EARLIER_MARK, JUDGED_MARK),
        ),
    ),
    # Lines of the prompt's own that ordinary text holds too: a policy may, in the middle of one.
    ControlString("Output:", refused=False, line=True),
    ControlString("S0:", refused=False, line=True, numbered=True),
    *(
        ControlString(text, token=True)
        for text in (
            *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<2mass>", "[@BOS@]", "[multimodal]"),
            *("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"),
            "<image_soft_token>",
        )
    ),
    ControlString("<unused0>", token=True, numbered=True),
)

_HTML = frozenset(
    [
        "a",
        "abbr",
        "article",
        "aside",
        "audio",
        "b",
        "blockquote",
        "body",
        "br",
        "button",
        "caption",
        "center",
        "cite",
        "code",
        "col",
        "colgroup",
        "dd",
        "del",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "embed",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "head",
        "header",
        "hr",
        "html",
        "i",
        "iframe",
        "img",
        "input",
        "ins",
        "kbd",
        "label",
        "li",
        "link",
        "main",
        "mark",
        "meta",
        "nav",
        "ol",
        "option",
        "p",
        "picture",
        "pre",
        "q",
        "s",
        "samp",
        "script",
        "section",
        "select",
        "small",
        "source",
        "span",
        "strike",
        "strong",
        "style",
        "sub",
        "summary",
        "sup",
        "svg",
        "table",
        "tbody",
        "td",
        "textarea",
        "tfoot",
        "th",
        "thead",
        "time",
        "title",
        "tr",
        "tt",
        "u",
        "ul",
        "var",
        "video",
        "wbr",
    ]
)


def steers_nothing(token: str) -> bool:
    """Whether an added token means nothing to the prompt: white space, and tags of HTML.

    Gemma 3 has runs of line ends and blanks, and some twenty tags, so that they cost one token.
    """
    if not token.replace("▁", " ").strip():
        return True
    return token.startswith("<") and token.strip("</>").casefold() in _HTML
