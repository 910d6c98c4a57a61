"""Reading policy files: ``load_policy`` gives a valid policy or every problem of its file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import msgspec

from worker.contracts.event import Judged
from worker.contracts.verdict import Action, Severity
from worker.digests import directory_digest
from worker.document import MAX_BYTES, read_document
from worker.errors import PolicyError
from worker.guard.taxonomy import BUILTIN, FLOOR, canonical_category
from worker.policy.digest import digest
from worker.policy.fields import Fields, Problems, category_suggestion, suggestion
from worker.policy.floor import FLOOR_SEVERITY, check_floor, is_floor_name, means_floor
from worker.policy.model import (
    Actions,
    BuiltinPass,
    Candidate,
    CustomCategory,
    CustomPass,
    Example,
    Expectation,
    OnUndecided,
    PhraseMatch,
    Policy,
    Prefilter,
    PrefilterDecide,
    PrefilterList,
    Think,
    ThinkWhen,
    Thresholds,
)
from worker.prefilter.phrases import too_broad
from worker.prefilter.pictures import DEFAULT_DISTANCE, MAX_DISTANCE, PHASH, SHA256

# Files of a prefilter's lists: one entry a line, beside the policy.

LIST_SUFFIX = ".txt"

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_ENTRIES = 100_000
_SHOWN = 20
"""Problems reported of one file; a file of another kind would have one in every line."""

EntryProblem = Callable[[str], tuple[str, str] | None]
"""What is wrong with an entry, and what to do; None where nothing is."""


class ListFile(NamedTuple):
    """A file's name as the policy gives it, and what it lists."""

    name: str | None
    entries: tuple[str, ...]


Lists = Mapping[str, bytes]
"""Files of lists by name, as they were when the policies beside them were read."""


def read_list(
    fields: Fields, field: str, policy_file: str, wrong: EntryProblem, lists: Lists | None
) -> ListFile:
    """The file that ``field`` names, its entries without repeats; reports every bad line.

    It is one of ``lists`` where those are given, and read from the disk otherwise.

    Blank lines and lines that begin with ``#`` are no entries; ``\\#`` begins one with ``#``.
    """
    name = fields.text(field, limit=200)
    none = ListFile(name or None, ())
    if not name:
        return none
    if Path(name).name != name or Path(name).suffix != LIST_SUFFIX or name.startswith("."):
        fix = f"Name a *{LIST_SUFFIX} file that lies beside the policy, without a directory."
        fields.report(field, f"`{name}` is no list beside the policy", fix)
        return none
    path = Path(policy_file).parent / name
    try:
        raw = lists[name] if lists is not None and name in lists else read_list_bytes(path)
    except OSError as error:
        fields.report(field, f"`{name}` cannot be read: {error.strerror}", "Check the name.")
        return none
    if len(raw) > MAX_FILE_BYTES:
        fields.report(field, f"`{name}` is larger than {MAX_FILE_BYTES} bytes", "Split it up.")
        return none
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.object[: error.start].count(b"\n") + 1
        fields.report(field, f"`{name}` is not UTF-8 in line {at}", "Save it as UTF-8.")
        return none
    entries: dict[str, None] = {}
    found: list[PolicyError] = []
    for number, written in enumerate(text.split("\n"), 1):
        line = written.strip()
        if not line or line.startswith("#"):
            continue
        entry = line[1:] if line.startswith("\\#") else line
        problem = wrong(entry)
        if problem is not None:
            what, fix = problem
            found.append(PolicyError(what, fix=fix, file=str(path), line=number, field=field))
        entries[entry] = None
    fields.problems.found += found[:_SHOWN]
    if len(found) > _SHOWN:
        fields.report(field, f"`{name}` has {len(found)} bad lines", "Mend the ones shown first.")
    if not entries:
        fields.report(field, f"`{name}` has no entries", "Write one a line, or delete the field.")
    if len(entries) > MAX_ENTRIES:
        fields.report(field, f"`{name}` has more than {MAX_ENTRIES} entries", "Split it up.")
    return ListFile(name, tuple(entries))


def read_list_bytes(path: Path) -> bytes:
    """The bytes of a list, and one more than it may have where it has more."""
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


# Reading each section of a policy file into its struct.

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
            fields.problems.add(where, problem, category_suggestion(given))
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
            fields.report(field, problem, category_suggestion(given), index)
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
    usual: Severity = FLOOR_SEVERITY if means_floor(name) else "high"
    severity: Severity = fields.choice("severity", usual, SEVERITIES)
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


# Reading ``prefilter:``, and what it must not say.

MAX_INLINE = 2_000
MAX_PHRASE = 200
_DECIDES: tuple[PrefilterDecide, ...] = get_args(PrefilterDecide)
_MATCHES: tuple[PhraseMatch, ...] = get_args(PhraseMatch)
_LIST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_HIGH: Severity = "high"
_REASON: PrefilterDecide = "reason"
_NORMALISED: PhraseMatch = "normalised"


def read_prefilter(fields: Fields | None, file: str, given: Lists | None) -> Prefilter | None:
    """``prefilter:`` with the files it names; ``file`` is the policy's own."""
    if fields is None:
        return None
    allowed = read_list(fields, "allow_file", file, lambda entry: _bad(entry, "normalised"), given)
    prefilter = Prefilter(
        lists=tuple(_list(each, file, given) for each in fields.sections("lists")),
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


def _list(fields: Fields, file: str, given: Lists | None) -> PrefilterList:
    name = fields.text("name", required=True)
    if name and not _LIST_NAME.fullmatch(name):
        problem = f"`{name}` is not a name of a list"
        fields.report("name", problem, "Use a-z, 0-9 and hyphens, at most 64 characters.")
    match: PhraseMatch = fields.choice("match", _NORMALISED, _MATCHES)
    category = fields.text("category", limit=80) or None
    severity = fields.choice("severity", _HIGH, SEVERITIES)
    phrases = read_list(fields, "phrases_file", file, lambda entry: _bad(entry, match), given)
    images = read_list(fields, "images_file", file, _bad_image, given)
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
        if is_floor_name(each.category) and each.category != FLOOR:
            problem = f"`{each.category}` is the floor's own category"
            problems.add((*where, "category"), problem, f"Write `{FLOOR}`.")
        if means_floor(each.category) and each.severity not in (None, FLOOR_SEVERITY):
            what = FLOOR if is_floor_name(each.category) else f"{each.category}`, as of `{FLOOR}"
            problem = f"the severity of `{what}` is always {FLOOR_SEVERITY}"
            problems.add((*where, "severity"), problem, "Delete the line.")


# Checks across the sections of one policy: its examples fit it, the files it names exist.


def legal_categories(policy: Policy) -> tuple[str, ...]:
    """Every name a verdict under this policy may list, the floor's last."""
    names: list[str] = []
    if policy.builtin.enabled:
        names += [name for name in BUILTIN if name not in policy.builtin.suppress]
    if policy.custom is not None:
        names += custom_names(policy.custom)
    if policy.prefilter is not None:
        names += [each.category for each in policy.prefilter.lists if each.category]
    return (*(name for name in dict.fromkeys(names) if name != FLOOR), FLOOR)


def custom_names(custom: CustomPass) -> tuple[str, ...]:
    """The names of a policy's own pass: its taxonomy's, or the disallowed phrases."""
    return tuple(category.name for category in custom.taxonomy) or custom.disallowed


def adapter_path(policy: Policy) -> str | None:
    """Where the policy's adapter lies; paths are relative to the policy file."""
    return None if policy.adapter is None else str(_beside(policy, policy.adapter))


def image_path(policy: Policy, example: Example) -> Path | None:
    """Where the image of an example lies; paths are relative to the policy file."""
    return None if example.image is None else _beside(policy, example.image)


def _beside(policy: Policy, path: str) -> Path:
    return Path(policy.file).parent / path


def check_examples_fit(policy: Policy, problems: Problems) -> None:
    """Report examples that expect categories the policy cannot give."""
    legal = legal_categories(policy)
    folded = {name.casefold() for name in legal}
    for index, example in enumerate(policy.examples):
        for place, given in enumerate(example.categories):
            canonical = canonical_category(given)
            if given.casefold() in folded or canonical in legal:
                continue
            where = ("examples", index, "categories", place)
            if canonical in policy.builtin.suppress:
                fix = "Expect another category, or stop suppressing it."
                problems.add(where, f"the policy suppresses `{canonical}`", fix)
            else:
                problem = f"`{given}` is no category of this policy"
                problems.add(where, problem, suggestion(given, legal))


def check_files(policy: Policy, problems: Problems) -> None:
    """Report an adapter or an image that is not where the policy says."""
    adapter = adapter_path(policy)
    if adapter is not None and not _exists(Path(adapter) / "adapter_config.json"):
        fix = "Name a directory with an adapter_config.json, relative to the policy file."
        problems.add(("adapter",), f"`{policy.adapter}` is not a LoRA adapter", fix)
    for index, example in enumerate(policy.examples):
        image = image_path(policy, example)
        if image is not None and not _exists(image):
            fix = "Name an image file, relative to the policy file."
            problems.add(("examples", index, "image"), f"`{example.image}` is not there", fix)


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, a null byte: no such file either way
        return False


MAX_EXAMPLES = 500
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Z][a-z]{3})?(?:-(?:[A-Z]{2}|[0-9]{3}))?")
_ON_UNDECIDED: tuple[OnUndecided, ...] = get_args(OnUndecided)
_JUDGED: tuple[Judged, ...] = get_args(Judged)


def load_policy(path: Path | str) -> Policy:
    """Read and validate one policy file.

    Raises:
        PolicyError: the file cannot be used; its ``problems`` name every line, field and fix.
    """
    return parse_policy(read_policy_bytes(Path(path)), file=str(path))


def read_policy_bytes(path: Path) -> bytes:
    """The bytes of a policy file, within its size limit.

    Raises:
        PolicyError: the file is away, unreadable or too large.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise PolicyError(problem, fix="Check the path.", file=str(path)) from error
    if len(raw) > MAX_BYTES:
        problem = f"the file is larger than {MAX_BYTES} bytes"
        raise PolicyError(problem, fix="Split the policy up.", file=str(path))
    return raw


def parse_policy(raw: bytes | str, *, file: str = "", lists: Lists | None = None) -> Policy:
    """Validate the text of a policy; ``file`` is where paths in it are relative to, ``lists`` are
    the files beside it as they were read with it.

    Raises:
        PolicyError: as ``load_policy``.
    """
    problems = Problems(file)
    if isinstance(raw, bytes):
        try:
            raw = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            problems.at(line, (), "not UTF-8", "Save the file as UTF-8.")
            problems.raise_any()
    assert isinstance(raw, str)
    read = read_document(raw)
    document = read.values
    problems.lines.update(read.lines)
    for fault in read.faults:
        problems.at(fault.line, fault.where, fault.problem, fault.fix, fault.excerpt)
    if not document:
        if not problems.found:
            problems.add((), "the file is empty", "Begin with `name:`, see docs/policies.md.")
        problems.raise_any()
    policy = _read(Fields(document, (), problems), file, lists)
    if not policy.builtin.enabled and policy.custom is None:
        problem = "nothing is judged: `builtin` is off and `custom` is not given"
        problems.add(("builtin", "enabled"), problem, "Enable `builtin` or write `custom`.")
    check_floor(policy, problems)
    check_prefilter(policy, problems)
    check_examples_fit(policy, problems)
    check_files(policy, problems)
    problems.raise_any()
    policy = msgspec.structs.replace(policy, adapter_sha256=_adapter_digest(policy, problems))
    problems.raise_any()
    return msgspec.structs.replace(policy, sha256=digest(policy))


def _adapter_digest(policy: Policy, problems: Problems) -> str | None:
    adapter = adapter_path(policy)
    if adapter is None:
        return None
    try:
        return directory_digest(Path(adapter))
    except OSError as error:
        problem = f"`{policy.adapter}` cannot be read: {error.strerror}"
        problems.add(("adapter",), problem, "Make its files readable.")
        return None


def _read(fields: Fields, file: str, lists: Lists | None) -> Policy:
    name = fields.text("name", required=True)
    if name and not _NAME.fullmatch(name):
        problem = f"`{name}` is not a policy name"
        fields.report("name", problem, "Use a-z, 0-9 and hyphens, at most 64 characters.")
    policy = Policy(
        name=name,
        version=fields.integer("version", 1, 1, 2**31 - 1, required=True),
        owner=fields.text("owner", required=True),
        topics=_matching(fields, "topics", _TOPIC, "a Kafka topic name", "a-z, 0-9, `.`, `_`, `-`"),
        description=fields.text("description", limit=2_000),
        builtin=read_builtin(fields.section("builtin")),
        custom=read_custom(fields.section("custom")),
        adapter=fields.text("adapter", limit=400) or None,
        think=read_think(fields.section("think")),
        thresholds=read_thresholds(fields.section("thresholds")),
        actions=read_actions(fields.section("actions")),
        on_undecided=fields.choice("on_undecided", "hold", _ON_UNDECIDED),
        judged=fields.choice("judged", _JUDGED[0], _JUDGED),
        prefilter=read_prefilter(fields.section("prefilter"), file, lists),
        cache=fields.flag("cache", True),
        languages=_matching(
            fields, "languages", _LANGUAGE, "a BCP 47 language tag", "e.g. en, pt-BR, zh-Hant"
        ),
        candidate=read_candidate(fields.section("candidate")),
        examples=tuple(
            read_example(each) for each in fields.sections("examples", most=MAX_EXAMPLES)
        ),
        file=file,
    )
    fields.close()
    if not fields.given("topics"):
        fix = "List the input topics, or write `topics: []` for a policy bound to none."
        if not isinstance(fields.value("topics"), list):
            fields.report("topics", "the field is missing", fix)
    if policy.custom is not None and not policy.custom.taxonomy and not policy.description:
        problem = "a free-text policy shows its description to the model, and it is empty"
        fields.report("description", problem, "Say in a sentence what is judged and where.")
    return policy


def _matching(
    fields: Fields, name: str, pattern: re.Pattern[str], what: str, how: str
) -> tuple[str, ...]:
    values = fields.texts(name, limit=249)
    for index, value in enumerate(values):
        if not pattern.fullmatch(value) or value in (".", ".."):
            fields.report(name, f"`{value}` is not {what}", f"Use {how}.", index)
    return values
