"""Reading each section of a policy file into its struct."""

from __future__ import annotations

from typing import Literal, get_args

from worker.contracts.verdict import Action, Severity
from worker.policy.fields import Fields
from worker.policy.model import (
    Actions,
    BuiltinPass,
    Candidate,
    CustomCategory,
    CustomPass,
    Example,
    Expectation,
    Think,
    ThinkWhen,
    Thresholds,
)
from worker.policy.problems import suggestion
from worker.policy.taxonomy import BUILTIN, canonical_category

ACTIONS: tuple[Action, ...] = get_args(Action)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
_WHENS: tuple[ThinkWhen, ...] = get_args(ThinkWhen)
_EXPECTATIONS: tuple[Expectation, ...] = get_args(Expectation)


def read_builtin(fields: Fields | None) -> BuiltinPass:
    """``builtin:``, category names in any known spelling."""
    if fields is None:
        return BuiltinPass()
    enabled = fields.flag("enabled", True)
    suppress = _categories(fields, "suppress")
    severity: dict[str, Severity] = {}
    for given, level in fields.choices("severity", SEVERITIES).items():
        name = canonical_category(given)
        where = (*fields.where, "severity", given)
        if name is None:
            problem = "not one of the 24 built-in categories"
            fields.problems.add(where, problem, suggestion(given, BUILTIN))
        elif name in severity:
            fields.problems.add(where, f"`{name}` is given twice", "Keep one of the two.")
        else:
            severity[name] = level
            fields.problems.lines[(*fields.where, "severity", name)] = fields.problems.lines[where]
            if name in suppress:
                problem = f"`{name}` is suppressed, its severity would never count"
                fields.problems.add(where, problem, "Delete one of the two lines.")
    if not enabled and (suppress or severity):
        unused = "suppress" if suppress else "severity"
        fields.report(unused, "the built-in pass is off", "Delete it, or set `enabled: true`.")
    fields.close()
    return BuiltinPass(enabled=enabled, suppress=suppress, severity=severity)


def _categories(fields: Fields, field: str) -> tuple[str, ...]:
    """A list of built-in names, in the template's spelling."""
    names: list[str] = []
    for index, given in enumerate(fields.texts(field)):
        name = canonical_category(given)
        if name is None:
            problem = f"`{given}` is not one of the 24 built-in categories"
            fields.report(field, problem, suggestion(given, BUILTIN), index)
        elif name in names:
            fields.report(field, f"`{name}` is listed twice", "Keep one of the two.", index)
        else:
            kept = (*fields.where, field, len(names))
            fields.problems.place(kept, (*fields.where, field, index))
            names.append(name)
    return tuple(names)


def read_custom(fields: Fields | None) -> CustomPass | None:
    """``custom:``, free text lists or a taxonomy."""
    if fields is None:
        return None
    disallowed = fields.texts("disallowed")
    allowed = fields.texts("allowed")
    taxonomy = tuple(_category(each) for each in fields.sections("taxonomy"))
    severity_given = fields.given("severity")
    severity: Severity = fields.choice("severity", "high", SEVERITIES)
    fields.close()
    if taxonomy and (disallowed or allowed):
        fields.report(
            "taxonomy",
            "free text (`disallowed`, `allowed`) and a taxonomy exclude each other",
            "Keep one; exceptions to a category go into its `note`.",
        )
    if taxonomy and severity_given:
        problem = "with a taxonomy every category has its own severity"
        fields.report("severity", problem, "Move it into the entries of `taxonomy`.")
    if not fields.value("taxonomy") and not fields.value("disallowed"):
        problem = "nothing is judged: neither `disallowed` nor `taxonomy` is given"
        fields.problems.add(fields.where, problem, "Add one of them, or delete `custom`.")
    both = {line.casefold() for line in allowed} & {line.casefold() for line in disallowed}
    for index, line in enumerate(allowed):
        if line.casefold() in both:
            fields.report("allowed", f"`{line}` is disallowed too", "Keep one of the two.", index)
    seen: set[str] = set()
    for index, category in enumerate(taxonomy):
        if category.name and category.name.casefold() in seen:
            problem = f"`{category.name}` is listed twice"
            fields.report("taxonomy", problem, "Merge the two entries.", index)
        seen.add(category.name.casefold())
    return CustomPass(disallowed=disallowed, allowed=allowed, taxonomy=taxonomy, severity=severity)


def _category(fields: Fields) -> CustomCategory:
    name = fields.text("name", required=True, limit=80)
    if "," in name:
        problem = "a comma would split the name: the model separates names with commas"
        fields.report("name", problem, "Use `and` or `/`.")
    if name and not any(each.isalnum() for each in name):
        fields.report("name", "a name needs letters", "Name the category in words.")
    note = fields.text("note", limit=1_500)
    severity: Severity = fields.choice("severity", "high", SEVERITIES)
    fields.close()
    return CustomCategory(name=name, note=note, severity=severity)


def read_think(fields: Fields | None) -> Think:
    """``think:``."""
    if fields is None:
        return Think()
    think = Think(
        when=fields.choice("when", "never", _WHENS),
        band=fields.pair("band", Think().band),
        max_tokens=fields.integer("max_tokens", Think().max_tokens, 16, 4_096),
        deadline_ms=fields.integer("deadline_ms", Think().deadline_ms, 50, 600_000),
    )
    fields.close()
    return think


def read_thresholds(fields: Fields | None) -> Thresholds:
    """``thresholds:``."""
    if fields is None:
        return Thresholds()
    unsafe = fields.number("unsafe", Thresholds().unsafe, 0.0, 1.0)
    if unsafe in (0.0, 1.0):
        word = "everything" if unsafe == 0.0 else "nothing"
        fields.report("unsafe", f"{unsafe:g} makes {word} unsafe", "Choose between, e.g. 0.5.")
    fields.close()
    return Thresholds(unsafe=unsafe)


def read_actions(fields: Fields | None) -> Actions:
    """``actions:``."""
    if fields is None:
        return Actions()
    default: Action = fields.choice("default", Actions().default, ACTIONS)
    severity: dict[Severity, Action] = {}
    for given, action in fields.choices("severity", ACTIONS).items():
        if given in SEVERITIES:
            severity[given] = action
        else:
            where = (*fields.where, "severity", given)
            fields.problems.add(where, "not a severity", suggestion(given, SEVERITIES))
    fields.close()
    return Actions(default=default, severity=severity)


def read_candidate(fields: Fields | None) -> Candidate | None:
    """``candidate:``."""
    if fields is None:
        return None
    candidate = Candidate(
        version=fields.integer("version", 1, 1, 2**31 - 1, required=True),
        file=fields.text("file", required=True),
        sample=fields.number("sample", 0.1, 0.0, 1.0),
    )
    fields.close()
    return candidate


def read_example(fields: Fields) -> Example:
    """One entry of ``examples:``; its text is user content and kept as written."""
    example = Example(
        text=fields.raw("text", required=True) or "",
        response=fields.raw("response"),
        image=fields.raw("image", limit=400),
        expect=fields.required_choice("expect", _DEFAULT_EXPECTATION, _EXPECTATIONS),
        categories=fields.texts("categories"),
        checkpoint=fields.text("checkpoint", limit=80) or None,
    )
    if not example.text.strip() and fields.given("text"):
        fields.report("text", "empty text", "Write what the user says.")
    expected = fields.value("expect") == example.expect  # else it is reported already
    if expected and example.categories and example.expect != "unsafe":
        problem = f"an example that expects {example.expect} names categories"
        fields.report("categories", problem, "Delete them, or expect unsafe.")
    fields.close()
    return example


_DEFAULT_EXPECTATION: Literal["safe"] = "safe"
