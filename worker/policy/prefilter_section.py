"""Reading ``prefilter:``, and what it must not say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

from worker.contracts.verdict import Severity
from worker.policy.fields import Fields
from worker.policy.floor import FLOOR_SEVERITY, is_floor_name
from worker.policy.lists import read_list
from worker.policy.model import PhraseMatch, Policy, Prefilter, PrefilterDecide, PrefilterList
from worker.policy.problems import Problems
from worker.policy.sections import SEVERITIES
from worker.policy.taxonomy import FLOOR, canonical_category
from worker.prefilter.phrases import too_broad
from worker.prefilter.pictures import DEFAULT_DISTANCE, MAX_DISTANCE, PHASH, SHA256

MAX_INLINE = 2_000
MAX_PHRASE = 200
_DECIDES: tuple[PrefilterDecide, ...] = get_args(PrefilterDecide)
_MATCHES: tuple[PhraseMatch, ...] = get_args(PhraseMatch)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_HIGH: Severity = "high"
_REASON: PrefilterDecide = "reason"
_NORMALISED: PhraseMatch = "normalised"


def read_prefilter(fields: Fields | None, file: str) -> Prefilter | None:
    """``prefilter:`` with the files it names; ``file`` is the policy's own."""
    if fields is None:
        return None
    allowed = read_list(fields, "allow_file", file, lambda entry: _bad(entry, "normalised"))
    prefilter = Prefilter(
        lists=tuple(_list(each, file) for each in fields.sections("lists")),
        allow=_phrases(fields, "allow", "normalised"),
        allow_file=allowed.name,
        judge_too=fields.flag("judge_too", False),
        loaded=allowed.entries,
    )
    fields.close()
    if not fields.value("lists"):
        problem = "nothing is looked for: `lists` is not given"
        fields.problems.add(fields.where, problem, "Add a list, or delete `prefilter`.")
    seen: set[str] = set()
    for index, each in enumerate(prefilter.lists):
        if each.name and each.name in seen:
            problem, fix = f"`{each.name}` is the name of another list too", "Rename one of them."
            fields.report("lists", problem, fix, index)
        seen.add(each.name)
    return prefilter


def _list(fields: Fields, file: str) -> PrefilterList:
    name = fields.text("name", required=True)
    if name and not _NAME.fullmatch(name):
        problem = f"`{name}` is not a name of a list"
        fields.report("name", problem, "Use a-z, 0-9 and hyphens, at most 64 characters.")
    match: PhraseMatch = fields.choice("match", _NORMALISED, _MATCHES)
    category = fields.text("category", limit=80) or None
    severity = fields.choice("severity", _HIGH, SEVERITIES)
    phrases = read_list(fields, "phrases_file", file, lambda entry: _bad(entry, match))
    images = read_list(fields, "images_file", file, _bad_image)
    read = PrefilterList(
        name=name,
        decide=fields.required_choice("decide", _REASON, _DECIDES),
        category=canonical_category(category) or category if category else None,
        severity=severity if fields.given("severity") else None,
        phrases=_phrases(fields, "phrases", match),
        phrases_file=phrases.name,
        match=match,
        images=_images(fields),
        images_file=images.name,
        distance=fields.integer("distance", DEFAULT_DISTANCE, 0, MAX_DISTANCE),
        loaded=(*phrases.entries, *map(_digest, images.entries)),
    )
    _check_kind(fields)
    fields.close()
    return read


def _check_kind(fields: Fields) -> None:
    """One kind of entries a list, and only what belongs to that kind."""
    phrases = [name for name in ("phrases", "phrases_file") if fields.value(name)]
    images = [name for name in ("images", "images_file") if fields.value(name)]
    if not phrases and not images:
        problem = "the list is empty"
        fix = "Add `phrases`, `phrases_file`, `images` or `images_file`."
        fields.problems.add(fields.where, problem, fix)
    if phrases and images:
        fields.report(images[0], "phrases and images in one list", "Make two lists of it.")
    elif images and fields.given("match"):
        fields.report("match", "images have no spelling", "Delete it; images have a `distance`.")
    elif phrases and fields.given("distance"):
        fields.report("distance", "phrases have no distance", "Delete it; phrases have a `match`.")


def _phrases(fields: Fields, field: str, match: PhraseMatch) -> tuple[str, ...]:
    return _kept(
        fields,
        field,
        [
            (index, phrase.strip(), _bad(phrase.strip(), match))
            for index, phrase in fields.raws(field, limit=MAX_PHRASE, most=MAX_INLINE)
        ],
    )


def _images(fields: Fields) -> tuple[str, ...]:
    return _kept(
        fields,
        "images",
        [
            (index, _digest(entry), _bad_image(entry))
            for index, entry in fields.raws("images", limit=MAX_PHRASE, most=MAX_INLINE)
        ],
    )


def _kept(
    fields: Fields, field: str, entries: Sequence[tuple[int, str, tuple[str, str] | None]]
) -> tuple[str, ...]:
    kept: dict[str, None] = {}
    for index, entry, wrong in entries:
        if wrong is not None:
            fields.report(field, *wrong, index)
        elif entry in kept:
            fields.report(field, f"`{entry}` is listed twice", "Keep one of the two.", index)
        kept[entry] = None
    return tuple(kept)


def _bad(phrase: str, match: PhraseMatch) -> tuple[str, str] | None:
    if len(phrase) > MAX_PHRASE:
        return f"longer than {MAX_PHRASE} characters", "Shorten it."
    if too_broad(phrase, match):
        what = f"`{phrase}` leaves next to nothing to look for, and would be found everywhere"
        return what, "Write a longer phrase, or `match: exact` for signs and single letters."
    return None


def _bad_image(entry: str) -> tuple[str, str] | None:
    if SHA256.fullmatch(_digest(entry)) or PHASH.fullmatch(_digest(entry)):
        return None
    fix = "Write 64 hex digits (SHA-256) or 16 (pHash); `policy digest IMAGE` prints both."
    return f"`{entry[:40]}` is no digest of an image", fix


def _digest(entry: str) -> str:
    """Lower case, without what ``sha256sum`` writes behind it."""
    return entry.split(maxsplit=1)[0].lower() if entry.strip() else ""


def check_prefilter(policy: Policy, problems: Problems) -> None:
    """Report lists whose hits could not mean what the policy says elsewhere."""
    if policy.prefilter is None:
        return
    for index, each in enumerate(policy.prefilter.lists):
        where = ("prefilter", "lists", index)
        if each.category is None:
            if each.decide == "unsafe":
                problem = "a list that decides unsafe says as what"
                problems.add((*where, "category"), problem, "Add `category:`.")
            elif each.severity is not None:
                fix = "Add `category:`, or delete the line."
                problems.add((*where, "severity"), "a severity of no category", fix)
            continue
        if each.category in policy.builtin.suppress:
            problem = f"the policy suppresses `{each.category}`"
            fix = "Name another category, or stop suppressing it."
            problems.add((*where, "category"), problem, fix)
        if "," in each.category:
            problem, fix = "a comma in the name of a category", "Use `and` or `/`."
            problems.add((*where, "category"), problem, fix)
        if is_floor_name(each.category):
            if each.category != FLOOR:
                problem = f"`{each.category}` is the floor's own category"
                problems.add((*where, "category"), problem, f"Write `{FLOOR}`.")
            if each.severity not in (None, FLOOR_SEVERITY):
                problem = f"the severity of `{FLOOR}` is always {FLOOR_SEVERITY}"
                problems.add((*where, "severity"), problem, "Delete the line.")
