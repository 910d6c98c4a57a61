"""Nothing outside ``worker/guard`` knows a family: an invented one is judged with, and no literal
of a real one stands anywhere else."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from moderation_tools import house
from tests.judge.conformance import IMAGE
from tests.support.checkpoints import make_tokenizer
from tests.support.invented_guard import FLOOR, INVENTED, TEMPLATE
from tests.support.script_model import ScriptModel
from worker.errors import Undecided
from worker.guard.base import GuardModel
from worker.guard.registry import FAMILIES
from worker.judge.local.batch_scoring import plain_reader
from worker.judge.local.label_scores import Limits, answer_tokens
from worker.judge.local.loading import encoder, load
from worker.judge.local.prompt import Prompter
from worker.judge.local.reasoning import ReasoningRules
from worker.judge.local.requests import ScoreRequest, ScoreResult
from worker.judge.reference.decode import Context
from worker.judge.scripted import ScriptedJudge
from worker.judge.think import usable
from worker.judgement import JudgeRequest
from worker.policy.passes import builtin_rubric, make_rubric
from worker.settings import JudgeSettings

TOKENIZER = make_tokenizer()
ENCODE = encoder(TOKENIZER)
MARK = TOKENIZER.convert_tokens_to_ids("<unused17>")
ANSWER = answer_tokens(ENCODE, [TOKENIZER.eos_token_id], INVENTED)
STOCK = builtin_rubric((), INVENTED)


def read(text: str, *, response: bool = False) -> ScoreResult | Undecided:
    """The reading of one context behind which the model writes ``text``."""
    script = [*ENCODE(text), TOKENIZER.eos_token_id]
    model = ScriptModel(len(TOKENIZER), MARK, script)
    reader = plain_reader(model, ANSWER, TOKENIZER, Limits(4, 1000))
    context = Context((*ENCODE("the prompt"), MARK))
    return reader.read([ScoreRequest(context, response, STOCK)])[0]


@pytest.mark.parametrize(
    ("text", "user", "response", "names"),
    [
        ("Guest = input", "safe", None, []),
        ("Guest = request\nTides = Rude Gulls", "unsafe", None, ["Rude Gulls"]),
        (
            "Guest = input\nHost = request\nTides = Broken Masts; Young Ones",
            "safe",
            "unsafe",
            ["Broken Masts", FLOOR],
        ),
    ],
)
def test_the_local_judge_reads_labels_lines_and_the_floor_of_any_family(
    text: str, user: str, response: str | None, names: list[str]
) -> None:
    reading = read(text, response=response is not None)
    assert isinstance(reading, ScoreResult)
    assert reading.user.label == user
    assert (reading.response and reading.response.label) == response
    assert [each.name for each in reading.categories] == names
    assert (reading.floor_score > 0.9) == (FLOOR in names)


def test_the_local_judge_writes_and_parses_where_the_text_is_another() -> None:
    """A whole answer is decoded and read by the family's own grammar."""
    reading = read("\nGuest = request\nTides = Rude Gulls")
    assert isinstance(reading, ScoreResult)
    assert (reading.user.label, reading.tokens > 0) == ("unsafe", True)
    assert isinstance(read("User Safety: safe"), Undecided)


def test_the_local_judge_fills_the_familys_own_template(checkpoint: Path) -> None:
    """Its switches, its stand-in for a missing text, its control strings."""
    loaded = load(JudgeSettings(model=str(checkpoint), max_context=900))
    own = dataclasses.replace(loaded, guard=INVENTED, template=TEMPLATE)
    prompter = Prompter(own, context_budget=200)

    def shown(**fields: object) -> str:
        values: dict[str, object] = {"user": "ahoy", "response": None, "rubric": STOCK}
        prepared = prompter.prepare(JudgeRequest(**(values | fields)))  # type: ignore[arg-type]
        text: str = own.tokenizer.decode(prepared.context.ids)
        return text

    listed = make_rubric(
        "taxonomy", INVENTED.taxonomy_text([("Salt", "too much")]), ("Salt", FLOOR)
    )
    free = make_rubric("policy", INVENTED.policy_text("p", "d", ["salt"], []), ("salt", FLOOR))
    assert "* Salt | too much" in shown(rubric=listed)
    assert "never salt" in shown(rubric=free)
    assert "(a picture)" in shown(user="", image=IMAGE)
    assert "Guest =" not in shown(user="Guest = input")
    prepared = prompter.prepare(JudgeRequest(user="ahoy", response=None, rubric=STOCK))
    assert "and muse" in own.tokenizer.decode(prompter.thinking(prepared).ids)


def test_traces_stand_between_the_familys_own_tags() -> None:
    rules = ReasoningRules(ANSWER, TOKENIZER)
    assert rules.draft([]) == [tuple(ENCODE("{musing}\n"))]
    assert usable("{musing}\nthe wind\n{mused}", INVENTED) == "the wind"
    assert usable("{musing}\nthe wind", INVENTED) != "the wind"


async def test_the_scripted_judge_plays_any_family() -> None:
    judged = await ScriptedJudge(guard=INVENTED).judge(
        JudgeRequest(user="a squawk and a zibblefant", response=None, rubric=STOCK)
    )
    assert {each.name for each in judged.categories} == {"Rude Gulls", FLOOR}
    assert judged.floor_score > 0.9


# Literals.


def _literals(guard: GuardModel) -> set[str]:
    """What only this family says: long enough that no other text holds it by chance."""
    says = guard.spelling
    words = {
        says.user,
        says.response,
        says.categories,
        says.floor,
        *guard.trace_tags,
        *guard.own_kwargs,
    }
    words |= {each.text for each in guard.control_strings} | set(guard.names) | {guard.no_text}
    plain = {"Other", "Sexual", "Threat", "Privacy", "Hate", "categories", "User:", "Agent:"}
    plain |= {"Sexual Content"}  # words of the exemption check as well
    return {each.strip() for each in words if len(each.strip()) > 3} - plain


_ELSEWHERE = {
    "contracts/samples.py": "examples of the published schemas are of the model that ships",
    "cli/choose_policy.py": "headings of a free-text file, which people write",
    "settings/sections.py": "the names that judge.family has for the families",
}
"""Where a literal stands for a reason."""


def _strings(file: Path) -> list[str]:
    """Every string of a module that is no docstring."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    said = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said
    ]


def test_no_literal_of_a_family_stands_outside_its_room() -> None:
    """A second place that knows a family's words is a second place to change for the next one."""
    words = {word: each.name for each in FAMILIES.values() for word in _literals(each)}
    strays = [
        (place, word)
        for place, file in (
            (f.relative_to(house.PACKAGE).as_posix(), f) for f in house.files().values()
        )
        if not place.startswith("guard/") and place not in _ELSEWHERE
        for text in _strings(file)
        for word in words
        if word.casefold() in text.casefold()
    ]
    assert strays == []


def test_nothing_outside_the_room_imports_a_family() -> None:
    """Who wants one asks the registry, or is given one."""
    families = {"worker.guard.nemotron35", "worker.guard.llama_guard4"}
    importers = {
        module
        for module, targets in house.file_graph().items()
        if families & targets and not module.startswith("worker.guard")
    }
    assert importers == set()


def test_the_room_lies_below_policies_and_judges() -> None:
    """A family is text alone: it imports no policy, no judge and no model library."""
    for module, file in house.files().items():
        if module.startswith("worker.guard"):
            names = {name for name, _ in house.imports(file)}
            assert not any(
                name.startswith(("worker.policy", "worker.judge.", "worker.settings", "torch"))
                for name in names
            ), module
