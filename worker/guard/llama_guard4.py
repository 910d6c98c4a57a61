"""Llama Guard 4: everything that is true of this family of guards and of no other.

Sources: Meta's page on its prompt format (llama.com, model cards and prompt formats), the model
card of meta-llama/Llama-Guard-4-12B, and the chat templates that Meta ships with Llama Guard 3 and
4. A prompt labels the last turn alone; the answer is ``safe``, or ``unsafe`` and a line of codes.
It is served by others (``judge.backend: remote``). What a server's template does not have is found
out at start, and policies that need it are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from worker.contracts.verdict import Label
from worker.errors import ConfigurationError
from worker.guard.base import (
    Answer,
    Category,
    CategoryLine,
    ControlString,
    Conversation,
    Features,
    GuardModel,
    NamedCategory,
    Render,
    SideName,
    Spelling,
    Switch,
    WrittenLabel,
    malformed,
)
from worker.judgement import Rubric, RubricMode

FLOOR = "Child Exploitation"

# The template's spelling; aliases are the model card's.
_CATEGORIES = (
    Category("S1", "Violent Crimes"),
    Category("S2", "Non-Violent Crimes"),
    Category("S3", "Sex Crimes", aliases=("sex-related crimes",)),
    Category("S4", FLOOR, "critical", ("child sexual exploitation",)),
    Category("S5", "Defamation"),
    Category("S6", "Specialized Advice"),
    Category("S7", "Privacy"),
    Category("S8", "Intellectual Property"),
    Category("S9", "Indiscriminate Weapons"),
    Category("S10", "Hate"),
    Category("S11", "Self-Harm", aliases=("suicide & self-harm", "suicide and self-harm")),
    Category("S12", "Sexual Content"),
    Category("S13", "Elections"),
    Category("S14", "Code Interpreter Abuse"),
)
_STOCK = {each.code: f"{each.name}." for each in _CATEGORIES}
_FLOOR_CODE = next(each.code for each in _CATEGORIES if each.name == FLOOR)
_FIRST_OWN = len(_CATEGORIES) + 1
"""A policy's own categories are numbered from here on, so that no code means two things."""
_MOST_OWN = 25
"""``S39`` is the last of them: ``S40`` would begin like the floor's code."""

_CODE = r"S[1-9][0-9]{0,2}"
_ANSWER = re.compile(
    rf"\s*(safe|unsafe)[ \t]*(?:\n[ \t]*(?P<line>{_CODE}(?:[ \t]*,[ \t]*{_CODE})*))?\s*",
    re.IGNORECASE | re.ASCII,
)
_CODES = re.compile(_CODE, re.IGNORECASE | re.ASCII)

_ROLES = frozenset({"user", "assistant"})
_NOT_SHOWN = "(not shown)"
"""Stands for a turn that the template wants between two of one role."""
_CANNED = ("How do I bake bread?", "Mix flour and water.")


def _text(categories: Mapping[str, str]) -> str:
    return "\n".join(f"{code}: {said}" for code, said in categories.items())


class LlamaGuard4(GuardModel):
    """meta-llama/Llama-Guard-4-12B, and what is fine-tuned from it in its format."""

    name = "llama-guard-4"
    title = "Llama Guard 4"
    features = Features(
        suppression=True,
        taxonomy=True,
        free_policy=False,
        think=False,
        scores=True,
        image_alone=False,
        local=False,
    )
    spelling = Spelling(
        user="",
        safe="safe",
        unsafe="unsafe",
        response="",
        categories="\n",
        first="",
        separators=(",", ", "),
        other="S1",
        floor=_FLOOR_CODE,
        open_ended=True,
    )
    categories = _CATEGORIES
    floor = FLOOR
    control_strings = (
        *(
            ControlString(text)
            for text in (
                *("<BEGIN UNSAFE CONTENT CATEGORIES>", "<END UNSAFE CONTENT CATEGORIES>"),
                *("<BEGIN CONVERSATION>", "<END CONVERSATION>"),
                *("Provide your safety assessment for", "First line must read"),
            )
        ),
        # What opens a turn in the rendered conversation; a policy may speak of both.
        ControlString("User:", refused=False, line=True),
        ControlString("Agent:", refused=False, line=True),
        *(
            ControlString(text, token=True)
            for text in (
                *("<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>"),
                *("<|eot|>", "<|eom|>", "<|step|>", "<|finetune_right_pad|>"),
                *("<|image_start|>", "<|image_end|>", "<|image|>", "<|patch|>"),
                *("<|tile_x_separator|>", "<|tile_y_separator|>"),
                *("<|python_start|>", "<|python_end|>"),
            )
        ),
        ControlString("<|reserved_special_token_0|>", token=True, numbered=True),
    )
    switches = (
        Switch(
            "excluded_category_keys",
            "taxonomy",
            _text({code: said for code, said in _STOCK.items() if code in ("S1", _FLOOR_CODE)}),
            _text({code: said for code, said in _STOCK.items() if code != "S1"}),
            required=False,
        ),
        Switch(
            "categories",
            "taxonomy",
            _text({_FLOOR_CODE: _STOCK[_FLOOR_CODE], "S15": "Canned Category."}),
            _text(
                {_FLOOR_CODE: _STOCK[_FLOOR_CODE], "S15": "Canned Category. " + "It is long. " * 9}
            ),
            required=False,
        ),
    )
    own_kwargs = frozenset({"categories", "excluded_category_keys"})
    no_text = "(image without text)"
    most_categories = _MOST_OWN
    sample_words: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "murder": "Violent Crimes",
            "grenade": "Indiscriminate Weapons",
            "phishing": "Non-Violent Crimes",
            "suicide": "Self-Harm",
            "passport": "Privacy",
            "zibblefant": FLOOR,
        }
    )

    def recognises(self, model: str) -> bool:
        return "llama-guard-4" in re.sub(r"[\W_]+", "-", model.casefold())

    # A rubric's text is one line a category, ``S1: Violent Crimes.``, as the template shows it.

    def builtin_text(self, suppressed: Collection[str]) -> str | None:
        if not suppressed:
            return None
        return _text(
            {
                each.code: _STOCK[each.code]
                for each in _CATEGORIES
                if each.name not in suppressed or each.name == FLOOR
            }
        )

    def taxonomy_text(self, categories: Sequence[tuple[str, str]]) -> str:
        own = {
            f"S{number}": f"{name}. {note}".strip()
            for number, (name, note) in enumerate(categories, start=_FIRST_OWN)
        }
        return _text({_FLOOR_CODE: _STOCK[_FLOOR_CODE], **own})

    def floor_missing(self, rubric: Rubric) -> str | None:
        if rubric.mode == "builtin":
            return None if rubric.text is None else "the stock taxonomy was replaced by a text"
        if rubric.mode == "policy":
            return f"{self.title} has no free-text policies"
        stands = f"{_FLOOR_CODE}: {_STOCK[_FLOOR_CODE]}" in (rubric.text or "").split("\n")
        return None if stands else "its line is not in the taxonomy"

    def template_kwargs(
        self, mode: RubricMode, text: str | None, *, think: bool
    ) -> dict[str, object]:
        if text is None:
            return {}
        shown = dict(line.split(": ", 1) for line in text.split("\n"))
        if shown.items() <= _STOCK.items():
            return {"excluded_category_keys": [code for code in _STOCK if code not in shown]}
        return {"categories": shown}

    def conversations(
        self, user: str, response: str | None, earlier: Sequence[tuple[str, str]]
    ) -> tuple[Conversation, ...]:
        """The user's turn is labelled without the response, as the model wants it."""
        asked = (*self._alternating(earlier), ("user", user))
        prompts = [Conversation(("user",), asked)]
        if response is not None:
            prompts.append(Conversation(("response",), (*asked, ("assistant", response))))
        return tuple(prompts)

    def _alternating(self, earlier: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Earlier turns as the template takes them: user, assistant, user, assistant."""
        turns: list[tuple[str, str]] = []
        for role, text in earlier:
            if role not in _ROLES:
                role, text = "user", f"{role}: {text}"
            expected = "assistant" if len(turns) % 2 else "user"
            if role != expected:
                turns.append((expected, _NOT_SHOWN))
            turns.append((role, text))
        return (*turns, ("assistant", _NOT_SHOWN)) if len(turns) % 2 else tuple(turns)

    def context_format(self) -> str:
        (sample,) = self.conversations("{judged}", None, [("user", "{earlier}")])
        return "\n".join(f"{role}: {text}" for role, text in sample.turns)

    def check_template(self, render: Render, bos: str) -> str:
        user, response = _CANNED
        plain, answered = render(user, None), render(user, response)
        for what, text, prompt in (("user", user, plain), ("assistant", response, answered)):
            if text not in prompt:
                raise ConfigurationError(
                    f"chat template: it leaves out the {what} text; use the checkpoint's own"
                )
        shown = dict(re.findall(rf"^({_CODE}): (.+?)\.?$", plain, re.MULTILINE))
        if not self.is_floor(shown.get(_FLOOR_CODE, "")):
            raise ConfigurationError(
                f"chat template: {_FLOOR_CODE} is not {FLOOR}; use a checkpoint with the template "
                f"of {self.title}"
            )
        odd = [
            f"-{each.code}: {each.name}\n+{each.code}: {shown.get(each.code, '')}"
            for each in _CATEGORIES
            if self.canonical(shown.get(each.code, "")) != each.name
        ]
        return "\n".join(odd)

    def line_tokens(self, mode: RubricMode) -> int:
        return 96  # a dozen codes, of three or four tokens with their comma

    def parse(
        self, text: str, labels: Sequence[SideName], rubric: Rubric, *, think: bool = False
    ) -> Answer:
        match = _ANSWER.fullmatch(text)
        if match is None:
            raise malformed("it is not a label and a line of codes")
        label: Label = "unsafe" if match[1].lower() == "unsafe" else "safe"
        written = WrittenLabel(label, 0, match.start(1), match.end(1))
        if match["line"] is None:
            return Answer(None, (written,), None)
        if label == "safe":
            raise malformed("a category is named though nothing is unsafe")
        start = match.start("line")
        names = tuple(
            NamedCategory(name, start + left, start + right)
            for name, left, right in self.split_categories(match["line"], rubric)
        )
        return Answer(None, (written,), CategoryLine(names, start, match.end("line")))

    def split_categories(self, line: str, rubric: Rubric) -> tuple[NamedCategory, ...]:
        meant = _codes(rubric)
        found: dict[str, NamedCategory] = {}
        for match in _CODES.finditer(line):
            code = match[0].upper()
            name = meant.get(code, code)
            found.setdefault(name, NamedCategory(name, match.start(), match.end()))
        return tuple(found.values())


def _codes(rubric: Rubric) -> dict[str, str]:
    """What each code means under a rubric; one of the stock's that was left out keeps its own."""
    meant = {each.code: each.name for each in _CATEGORIES}
    if rubric.text is not None and f"S{_FIRST_OWN}: " in rubric.text:
        own = (name for name in rubric.categories if name != FLOOR)
        meant |= {f"S{number}": name for number, name in enumerate(own, start=_FIRST_OWN)}
    return meant


LLAMA_GUARD4 = LlamaGuard4()
