"""Nemotron 3.5 Content Safety: everything that is true of this family of guards and of no other.

Sources: the chat template of nvidia/Nemotron-3.5-Content-Safety (its text path; the image branch is
not published), its model card, and answers that were seen of it. The checkpoint's own template
always renders; the text of it here is only what it is compared with.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from worker.contracts.verdict import Label
from worker.errors import ConfigurationError
from worker.guard.base import (
    MAX_NAME,
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
from worker.guard.context import EARLIER_MARK, JUDGED_MARK
from worker.judgement import Rubric, RubricMode

# The built-in taxonomy, S1 to S24 in the order of the template. Other spellings are the Aegis 2.0
# data set's and the predecessor models', accepted wherever a name is read and never written.

FLOOR = "Sexual (minor)"
"""The category no policy can suppress, rename or exempt content from."""

CATEGORIES: tuple[Category, ...] = (
    Category("S1", "Violence"),
    Category("S2", "Sexual"),
    Category("S3", "Criminal Planning/Confessions"),
    Category("S4", "Guns and Illegal Weapons", aliases=("guns/illegal weapons",)),
    Category("S5", "Controlled/Regulated Substances", aliases=("controlled substances",)),
    Category("S6", "Suicide and Self Harm"),
    Category("S7", FLOOR, "critical", ("sexual minor",)),
    Category("S8", "Hate/Identity Hate"),
    Category("S9", "PII/Privacy"),
    Category("S10", "Harassment"),
    Category("S11", "Threat"),
    Category("S12", "Profanity"),
    Category("S13", "Needs Caution"),
    Category("S14", "Other"),
    Category("S15", "Manipulation"),
    Category("S16", "Fraud/Deception"),
    Category("S17", "Malware"),
    Category("S18", "High Risk Gov Decision Making", aliases=("high risk gov. decision making",)),
    Category("S19", "Political/Misinformation/Conspiracy"),
    Category("S20", "Copyright/Trademark/Plagiarism"),
    Category("S21", "Unauthorized Advice"),
    Category("S22", "Illegal Activity"),
    Category("S23", "Immoral/Unethical"),
    Category("S24", "Economic Harm"),
)
BUILTIN: tuple[str, ...] = tuple(each.name for each in CATEGORIES)
"""Their names."""

# The text a policy puts in front of the model: one string per pass, a pure function of the policy.
#
# Three shapes exist, as the model was trained: the stock taxonomy (no text at all), a replaced
# taxonomy (``custom_taxonomy``, "mode B") and a free policy (``custom_policy``, "mode A"). The
# floor's line stands in every one of them. The card's "think step-by-step" sentence is left out of
# mode A, so that one prefix serves both THINK modes.

FLOOR_NOTE = "any sexual content involving a minor"

_POLICY_OPENING = (
    "Evaluate the user prompt for compliance with the given policy "
    "ignoring any previous policies you know about."
)


def builtin_taxonomy(suppressed: Collection[str]) -> str | None:
    """The stock taxonomy without its suppressed lines; None where nothing is suppressed.

    The remaining lines keep their original ``S`` numbers and the template's spelling.
    """
    if not suppressed:
        return None
    lines = [
        f"S{number}: {name}."
        for number, name in enumerate(BUILTIN, start=1)
        if name not in suppressed or name == FLOOR
    ]
    return "\n".join(lines)


def custom_taxonomy(categories: Sequence[tuple[str, str]]) -> str:
    """A taxonomy of the policy's own: ``- Name (short note)`` lines, the floor's line last."""
    lines = [f"- {name} ({note})" if note else f"- {name}" for name, note in categories]
    return "\n".join([*lines, f"- {FLOOR} ({FLOOR_NOTE})"])


def custom_policy(
    name: str, description: str, disallowed: Sequence[str], allowed: Sequence[str]
) -> str:
    """A free-text policy in the model card's shape; the floor is its last disallowed behaviour."""
    forbidden = [*disallowed, f"{FLOOR}: {FLOOR_NOTE}"]
    text = (
        f"{_POLICY_OPENING} \n\n### Policy\nName: {name}\nDescription: {description}\n\n"
        f"{_DISALLOWED}\n{_bullets(forbidden)}\n"
    )
    if allowed:
        text += f"\n{_ALLOWED}\n{_bullets(allowed)}\n"
    return text


_DISALLOWED, _ALLOWED = "Disallowed Behaviors:", "Allowed Behaviors:"
_FLOOR_LINES = (f"S{BUILTIN.index(FLOOR) + 1}: {FLOOR}.", f"- {FLOOR} ({FLOOR_NOTE})")
_FLOOR_BEHAVIOUR = f"- {FLOOR}: {FLOOR_NOTE}"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


# The known text of the chat template, and the check of a checkpoint's template against it.

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

_CANNED_USER, _CANNED_RESPONSE = "How do I bake bread?", "Mix flour and water."
_CANNED_CATEGORY = "S1: Canned Category."


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
    plain = render(_CANNED_USER, _CANNED_RESPONSE)
    for what, text in (("user", _CANNED_USER), ("assistant", _CANNED_RESPONSE)):
        if text not in plain:
            raise ConfigurationError(
                f"chat template: it leaves out the {what} text; use the checkpoint's own template"
            )
    switches: dict[str, tuple[dict[str, object], str]] = {
        "enable_thinking": ({"enable_thinking": True}, "/think"),
        "request_categories": ({"request_categories": CATEGORIES_SWITCH}, CATEGORIES_SWITCH),
        "custom_policy": ({"custom_policy": _CANNED_CATEGORY}, _CANNED_CATEGORY),
        "custom_taxonomy": ({"custom_taxonomy": _CANNED_CATEGORY}, _CANNED_CATEGORY),
    }
    for name, (kwargs, mark) in switches.items():
        rendered = render(_CANNED_USER, _CANNED_RESPONSE, **kwargs)
        if rendered == plain or mark not in rendered:
            raise ConfigurationError(
                f"chat template: the switch {name} has no effect; use a checkpoint with the "
                "template of Nemotron 3.5 Content Safety"
            )
    cases: list[tuple[str | None, dict[str, object]]] = [
        (None, {}),
        (_CANNED_RESPONSE, {"enable_thinking": True, "request_categories": CATEGORIES_SWITCH}),
        (
            _CANNED_RESPONSE,
            {"custom_policy": _CANNED_CATEGORY, "request_categories": CATEGORIES_SWITCH},
        ),
        (None, {"custom_taxonomy": _CANNED_CATEGORY}),
    ]
    differences = []
    for response, kwargs in cases:
        known = reference_prompt(_CANNED_USER, response, bos=bos, **kwargs)  # type: ignore[arg-type]
        shipped = render(_CANNED_USER, response, **kwargs)
        if known != shipped:
            differences.append(_diff(known, shipped))
    return "\n".join(differences)


def _diff(known: str, shipped: str) -> str:
    return "\n".join(
        difflib.unified_diff(
            known.splitlines(), shipped.splitlines(), "known template", "checkpoint", lineterm=""
        )
    )


# The written answer, read strictly: it is what the grammar says or it is malformed.
#
# An optional ``<think>`` trace, then ``User Safety: safe`` or ``unsafe``, with a response a line
# ``Response Safety: …``, and where something is unsafe an optional ``Safety Categories: name,
# name``: in this order, each once, and nothing else. White space is legal in front of the first
# line, behind a trace and at the end; so are other capitals.


def _field(name: str) -> str:
    return r"[ \t]*" + name.replace(" ", r"[ \t]+") + r"[ \t]*:"


_LABEL = r"[ \t]*(safe|unsafe)[ \t]*"
_USER, _RESPONSE, _CATEGORIES = "User Safety", "Response Safety", "Safety Categories"
_ANSWER = re.compile(
    rf"\s*(?P<user_field>{_field(_USER)}){_LABEL}"
    rf"(?:\n(?P<response_field>{_field(_RESPONSE)}){_LABEL})?"
    rf"(?:\n{_field(_CATEGORIES)}(?P<line>[^\n]*))?\s*",
    re.IGNORECASE | re.ASCII,  # the long s of Unicode is no s here
)
_CODE_LINE = re.compile(r"^\s*S(\d+)\s*[:.]\s*(.+?)\s*\.?\s*$", re.MULTILINE | re.IGNORECASE)
_CODE = re.compile(r"S(\d+)", re.IGNORECASE)
_CODED_NAME = re.compile(r"S\d+\s*[:.]\s*(\S.*)", re.IGNORECASE)
_SEPARATORS = ",; \t"


def parse_answer(
    text: str, labels: Sequence[SideName], rubric: Rubric, *, think: bool = False
) -> Answer:
    """As ``GuardModel.parse``."""
    trace, rest = NEMOTRON35.split_trace(text)
    if think and trace is None:
        raise malformed("no trace was closed")
    begins = len(text) - len(rest)
    match = _ANSWER.fullmatch(rest)
    if match is None:
        raise malformed(_wrong(rest))
    if (match["response_field"] is not None) != ("response" in labels):
        raise malformed(f"{_RESPONSE} is not there for the response, and only for it")
    user = _label(match, "user_field", 2, begins)
    found = [user]
    if "response" in labels:
        found.append(_label(match, "response_field", 4, begins))
    line = None
    if match["line"] is not None:
        if all(each.label == "safe" for each in found):
            raise malformed("a category is named though nothing is unsafe")
        start = match.start("line")
        names = split_categories(match["line"].rstrip(), rubric)
        at = begins + start
        line = CategoryLine(
            tuple(NamedCategory(name, at + left, at + right) for name, left, right in names),
            at,
            begins + match.end("line"),
        )
    return Answer(trace, tuple(found), line)


def _label(match: re.Match[str], field: str, group: int, begins: int) -> WrittenLabel:
    label: Label = "unsafe" if match[group].lower() == "unsafe" else "safe"
    opens = begins + match.end(field)
    return WrittenLabel(label, opens, begins + match.start(group), begins + match.end(group))


def _wrong(rest: str) -> str:
    """What is wrong with an answer that is none, in words that quote nothing of it."""
    for name in (_USER, _RESPONSE):
        if len(re.findall(_field(name), rest, re.IGNORECASE)) > 1:
            return f"{name} stands there more than once"
    if not re.search(_field(_USER), rest, re.IGNORECASE):
        return f"{_USER} is missing"
    return "something else stands beside the labels"


def split_categories(line: str, rubric: Rubric) -> tuple[NamedCategory, ...]:
    """The names in a category line, in order, once each.

    Known names are matched first, longest first, so that a name with commas of its own stays whole;
    elsewhere commas outside parentheses separate. Codes and other spellings become the name.
    """
    known = _known(rubric)
    found: dict[str, NamedCategory] = {}
    position = 0
    while position < len(line):
        if line[position] in _SEPARATORS:
            position += 1
            continue
        end, name = _match_known(line, position, known)
        if name is None:
            end = _phrase_end(line, position)
            name = _canonical(line[position:end], rubric)
        if name:
            found.setdefault(name, NamedCategory(name, position, end))
        position = max(end, position + 1)
    return tuple(found.values())


def _known(rubric: Rubric) -> list[tuple[str, str]]:
    """(what may be written, the name it stands for), longest first."""
    names = {name: name for name in rubric.categories}
    for name in BUILTIN:  # a suppressed category is still named as what it is
        names.setdefault(name, name)
    return sorted(names.items(), key=lambda pair: -len(pair[0]))


def _match_known(line: str, position: int, known: list[tuple[str, str]]) -> tuple[int, str | None]:
    rest = line[position:].casefold()
    for written, name in known:
        folded = written.casefold()
        if rest.startswith(folded):
            following = rest[len(folded) :].lstrip(". \t")
            if not following or following[0] in _SEPARATORS:
                return position + len(written), name
    return position, None


def _phrase_end(line: str, position: int) -> int:
    """The next comma outside parentheses; inside them too where they do not balance."""
    depth = 0
    for index in range(position, len(line)):
        character = line[index]
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character in ",;" and depth <= 0:
            return index
    if depth > 0:
        comma = line.find(",", position)
        return comma if comma >= 0 else len(line)
    return len(line)


def _canonical(phrase: str, rubric: Rubric) -> str:
    phrase = phrase.strip().rstrip(".").strip()
    code = _CODE.fullmatch(phrase)
    if code:
        return _codes(rubric).get(int(code[1]), phrase)
    coded = _CODED_NAME.fullmatch(phrase)
    if coded:
        phrase = coded[1].strip()
    folded = " ".join(phrase.split()).casefold()
    for name in rubric.categories:
        if " ".join(name.split()).casefold() == folded:
            return name
    if NEMOTRON35.is_floor(phrase):
        return FLOOR
    if rubric.mode != "policy":
        phrase = NEMOTRON35.canonical(phrase) or phrase
    return phrase[:MAX_NAME]


def _codes(rubric: Rubric) -> dict[int, str]:
    """What ``S1`` means: the line of the rubric's own text, else the stock taxonomy's number."""
    if rubric.mode == "policy":
        return {}
    stock = dict(enumerate(BUILTIN, start=1))
    own = {int(number): name for number, name in _CODE_LINE.findall(rubric.text or "")}
    if rubric.text is None or (own and own.items() <= stock.items()):
        return stock  # with lines left out, a suppressed one can still be answered by its code
    return own


# The strings that steer the model: of its template, and of Gemma 3's tokenizer. Its HTML tags and
# runs of white space are added tokens too, but mean nothing to the prompt.

_CONTROL_STRINGS: tuple[ControlString, ...] = (
    *map(
        ControlString,
        (
            *("<BEGIN CONVERSATION>", "<END CONVERSATION>", "<think>", "</think>"),
            *("/think", "/no_think", "/categories", "/no_categories"),
            *("### Answer:", "response: agent:"),
            *("### Policy", "Disallowed Behaviors:", "Allowed Behaviors:"),
            *("User Safety:", "Response Safety:", "Safety Categories:"),
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
_SHORT = "S1: Canned Category, which no stock taxonomy has, of some length."
_LONG = f"{_SHORT}\n{_SHORT}"


_SYNONYMS: Mapping[str, str] = {
    **dict.fromkeys(("weapon", "weapons", "gun", "firearms", "arms"), "Guns and Illegal Weapons"),
    **dict.fromkeys(
        ("drug", "drugs", "narcotics", "alcohol", "tobacco"), "Controlled/Regulated Substances"
    ),
    **dict.fromkeys(("selfharm", "suicidal"), "Suicide and Self Harm"),
    **dict.fromkeys(("hateful", "racism", "slurs", "discrimination"), "Hate/Identity Hate"),
    **dict.fromkeys(("personal", "doxxing", "doxing", "gdpr"), "PII/Privacy"),
    **dict.fromkeys(("bullying", "abuse", "toxicity", "insults"), "Harassment"),
    **dict.fromkeys(("threats", "threatening"), "Threat"),
    **dict.fromkeys(("swearing", "obscenity", "cursing", "vulgarity"), "Profanity"),
    **dict.fromkeys(("porn", "pornography", "nudity", "adult", "nsfw", "sex"), "Sexual"),
    **dict.fromkeys(("gore", "violent", "killing"), "Violence"),
    **dict.fromkeys(("scam", "scams", "phishing", "spam"), "Fraud/Deception"),
    **dict.fromkeys(("hacking", "cyber", "virus", "exploits"), "Malware"),
    **dict.fromkeys(("crime", "crimes"), "Criminal Planning/Confessions"),
    **dict.fromkeys(
        ("politics", "elections", "disinformation"), "Political/Misinformation/Conspiracy"
    ),
    **dict.fromkeys(("ip", "piracy"), "Copyright/Trademark/Plagiarism"),
    **dict.fromkeys(("medical", "legal", "financial"), "Unauthorized Advice"),
}


class Nemotron35(GuardModel):
    """nvidia/Nemotron-3.5-Content-Safety, and the demonstration checkpoint that speaks like it."""

    name = "nemotron35"
    title = "Nemotron 3.5 Content Safety"
    features = Features(
        suppression=True,
        taxonomy=True,
        free_policy=True,
        think=True,
        scores=True,
        image_alone=False,
        local=True,
    )
    spelling = Spelling(
        user="User Safety:",
        safe=" safe",
        unsafe=" unsafe",
        response="\nResponse Safety:",
        categories="\nSafety Categories:",
        first=" ",
        separators=(", ",),
        other="Violence",
        floor=FLOOR,
    )
    categories = CATEGORIES
    floor = FLOOR
    control_strings = _CONTROL_STRINGS
    switches = (
        Switch("custom_policy", "policy", _SHORT, _LONG),
        Switch("custom_taxonomy", "taxonomy", _SHORT, _LONG),
    )
    own_kwargs = frozenset(
        {"enable_thinking", "request_categories", "custom_policy", "custom_taxonomy"}
    )
    revisions: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"nvidia/Nemotron-3.5-Content-Safety": "35645ed3543b7e7ffaed2e788699e57a5051497c"}
    )
    begin = "<bos>"
    stop = ("<end_of_turn>",)
    trace_tags = ("<think>", "</think>")
    no_text = "(image without text)"
    synonyms: ClassVar[Mapping[str, str]] = MappingProxyType(dict(_SYNONYMS))
    sample_words: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "murder": "Violence",
            "grenade": "Guns and Illegal Weapons",
            "cocaine": "Controlled/Regulated Substances",
            "suicide": "Suicide and Self Harm",
            "phishing": "Fraud/Deception",
            "ransomware": "Malware",
            "bully": "Harassment",
            "darn": "Profanity",
            "passport": "PII/Privacy",
            "zibblefant": FLOOR,
        }
    )

    def recognises(self, model: str) -> bool:
        return "nemotron-3.5-content-safety" in model.casefold()

    def builtin_text(self, suppressed: Collection[str]) -> str | None:
        return builtin_taxonomy(suppressed)

    def taxonomy_text(self, categories: Sequence[tuple[str, str]]) -> str:
        return custom_taxonomy(categories)

    def policy_text(
        self, name: str, description: str, disallowed: Sequence[str], allowed: Sequence[str]
    ) -> str:
        return custom_policy(name, description, disallowed, allowed)

    def floor_missing(self, rubric: Rubric) -> str | None:
        lines = (rubric.text or "").split("\n")
        if rubric.mode == "builtin":
            return None if rubric.text is None else "the stock taxonomy was replaced by a text"
        if rubric.mode == "taxonomy":
            stands = any(line in _FLOOR_LINES for line in lines)
            return None if stands else "its line is not in the taxonomy"
        try:
            forbidden = lines.index(_DISALLOWED)
            place = lines.index(_FLOOR_BEHAVIOUR, forbidden)
        except ValueError:
            return "its line is not in the policy"
        return "its line stands among what is allowed" if _ALLOWED in lines[:place] else None

    def template_kwargs(
        self, mode: RubricMode, text: str | None, *, think: bool
    ) -> dict[str, object]:
        kwargs: dict[str, object] = {
            "enable_thinking": think,
            "request_categories": CATEGORIES_SWITCH,
        }
        if mode == "policy":
            kwargs["custom_policy"] = text
        elif text is not None:
            kwargs["custom_taxonomy"] = text
        return kwargs

    def conversations(
        self, user: str, response: str | None, earlier: Sequence[tuple[str, str]]
    ) -> tuple[Conversation, ...]:
        folded = ("user", self.fold(earlier, user))
        if response is None:
            return (Conversation(("user",), (folded,)),)
        return (Conversation(("user", "response"), (folded, ("assistant", response))),)

    def check_template(self, render: Render, bos: str) -> str:
        return check_template(render, bos)

    def line_tokens(self, mode: RubricMode) -> int:
        return 128 if mode == "policy" else 48  # a free policy's categories are whole sentences

    def parse(
        self, text: str, labels: Sequence[SideName], rubric: Rubric, *, think: bool = False
    ) -> Answer:
        return parse_answer(text, labels, rubric, think=think)

    def split_categories(self, line: str, rubric: Rubric) -> tuple[NamedCategory, ...]:
        return split_categories(line, rubric)


NEMOTRON35 = Nemotron35()
