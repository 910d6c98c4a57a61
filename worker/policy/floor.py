"""The floor: sexual content involving minors is judged under every policy, whatever it says.

Three guards: fixed constants that no policy can change, refusals when a policy loads, and a check
of every rendered rubric when its passes are built.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from worker.contracts.verdict import Action, Severity
from worker.errors import PolicyError
from worker.guard.render import FLOOR_NOTE
from worker.guard.taxonomy import BUILTIN, FLOOR
from worker.judgement import Rubric
from worker.policy.fields import Problems
from worker.policy.model import Policy
from worker.policy.wording import fold
from worker.text.lookalikes import unmasked

# Recognising a line that carves the floor out: minors and sexual content named together.
#
# A word list, not a model: it stops honest mistakes and plain attempts when a policy loads, in the
# twelve languages of the model. What gets past it still meets the floor's own line in every rubric.

# Stems: a Latin stem stands at the start of a word, other scripts match anywhere.
_MINORS = """
    minor minors child children childlike kid kids teen teens teenage teenager teenagers toddler
    toddlers infant infants baby babies preteen preteens underage underaged adolescent adolescents
    kiddie kiddies youth youths youngster youngsters schoolchild* prepubescent prepubesc* pubescent
    juvenile juveniles schoolgirl schoolgirls schoolboy schoolboys boy boys girl girls
    minderjährig* kinder* kindlich* kindes jugendlich* mädchen säugling*
    menor menores niño* niña* adolescente* infantil*
    mineur* enfant* fillette* garçonnet*
    minore minori minorenn* minoril* bambin* ragazzin*
    minderjarig* kindje*
    قاصر قصر طفل أطفال الأطفال مراهق
    नाबालिग बच्च बच्चे बच्चों बाल किशोर
    未成年 子ども 子供 こども 児童 少女 少年 幼児 小学生 中学生 高校生
    เด็ก ผู้เยาว์ เยาวชน
    미성년 아동 어린이 아이 청소년 소녀 소년
    儿童 孩子 兒童 幼女 幼童
"""
_SEXUAL = """
    sex sexual sexually sexualised sexualized sexualising sexualizing sexuality sexy sexting
    sexts porn porno pornographic pornography erotic erotica eroticism nude nudes nudity naked
    sexualis* sexualiz* grooming groomer groomers
    nsfw hentai lewd explicit fetish fetishes intercourse incest
    sexuell* sexual* pornogra* erotis* nackt*
    sexo sexuales pornográf* pornografi* pornografí* erótic* desnud*
    sexe sexuel* érotique* nu nue nus nues nudité
    sesso sessual* pornogra* erotic* nud*
    seks seksu* naakt*
    جنس إباحي اباحي عري عار
    यौन सेक्स कामुक अश्लील नग्न
    性的 性行為 性交 ポルノ エロ わいせつ 裸 ヌード
    ทางเพศ อนาจาร ลามก โป๊ เปลือย เซ็กซ์
    성적 성행위 성관계 음란 포르노 야한 누드 섹스
    性行为 色情 淫秽 裸体 做爱
"""
_BOTH = """
    csam csem csea csae pthc lolicon loli lolis shota shotacon jailbait
    paedophil* pedophil* pedofil* pädophil*
    pédophil* pedopornogra* pédopornogra* kinderporn* kindporn* 児童ポルノ 아동포르노 ロリコン
    아청물 儿童色情 恋童
"""
# Harmless phrases are taken out before the search: they name both without allowing either.
_HARMLESS = re.compile(
    r"\bsex(?:ual(?:ity)?)?(?: and relationships?)? education\b|\bsex(?:ual)? ed\b"
    r"|\b(?:sexual|reproductive)(?: and reproductive)? health\b|\bsexually transmitted\b"
    r"|\bsame[- ]sex\b|\b(?:either|both|opposite|any) sex(?:es)?\b|\bsexual orientation\b"
    r"|\bminor (?:injur|illness|ailment|edit|change|issue|bug|version|detail|key|error|update)\w*"
    r"|\bexplicit(?:ly)? (?:consent|permission|instruction|type|lock|cast|state)\w*"
    r"|\bchild(?:ren)? (?:process|node|element|theme|class|component|table|issue|row)\w*"
    r"|\bsexualkunde\w*|\bsexualerziehung\w*|\beducación sexual\b|\béducation sexuelle\b"
    r"|\beducazione sessuale\b|\bseksuele voorlichting\b|性教育|성교육|เพศศึกษา|यौन शिक्षा"
    r"|التربية الجنسية"
)
_EXCEPTIONS = """
    except excepting exceptions unless excluding excludes exclude exempt exempts exempted allow
    allows allowed permit permits permitted permissible acceptable okay ok tolerated ignore
    ignoring harmless legitimate consensual consenting
    außer ausgenommen erlaubt* zulässig*
    excepto salvo permitid* permite*
    sauf excepté autorisé* permis*
    tranne eccetto consentit* permess*
    behalve tenzij toegestaan* mag
    إلا باستثناء مسموح
    छोड़कर सिवाय अनुमति
    除く 以外 許可 許可され
    ยกเว้น อนุญาต
    제외 허용
    除外 除了 允许
"""
_NO_EXCEPTION = re.compile(
    r"\b(?:not|never|isn't|aren't) (?:be |being |been )?(?:allow|permit|accept|tolerat|ok)\w*"
    r"|\bno exceptions?\b|\bnicht (?:erlaubt|zulässig)\w*|\bno (?:está |se )?permit\w*"
)


def carves_out(line: str) -> bool:
    """Whether a line names minors and sexual content together, harmless phrases aside."""
    text = _HARMLESS.sub(" ", fold(line))
    return bool(_BOTH_WORDS.search(text)) or bool(
        _MINOR_WORDS.search(text) and _SEXUAL_WORDS.search(text)
    )


def lifts_ban(line: str) -> bool:
    """Whether a forbidding line or a description also makes an exception for the floor.

    Naming the floor in a prohibition is fine; naming it beside a word of exception is not.
    """
    if not carves_out(line):
        return False
    return bool(_EXCEPTION_WORDS.search(_NO_EXCEPTION.sub(" ", fold(line))))


def _pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Latin words whole (or from their start, with ``*``); words of other scripts anywhere."""
    parts = []
    for word in (fold(each) for each in words):
        stem = re.escape(word.rstrip("*"))
        if not word[0].isascii() and word[0] > "\u024f":
            parts.append(stem)
        else:
            parts.append(rf"\b{stem}\w*" if word.endswith("*") else rf"\b{stem}\b")
    return re.compile("|".join(parts))


_MINOR_WORDS = _pattern(_MINORS.split())
_SEXUAL_WORDS = _pattern(_SEXUAL.split())
_BOTH_WORDS = _pattern(_BOTH.split())
_EXCEPTION_WORDS = _pattern(_EXCEPTIONS.split())


FLOOR_THRESHOLD: Final = 0.1
"""P(unsafe) x P(full name of the floor category) from which an event breaks the floor.

Far below the 0.5 of an even choice, because this is the one category where a false alarm (a person
looks at blocked content) costs less than a miss. One in ten leaves room for the small share that
the name gets beside its neighbour ``Sexual``, whose first tokens it shares.
"""
FLOOR_ACTION: Final[Action] = "block"
"""What is done about content that breaks the floor, whatever the policy's actions say."""
FLOOR_SEVERITY: Final[Severity] = "critical"
"""Severity of the floor category, whatever the policy's severities say."""

_TAXONOMY_LINES = (f"S{BUILTIN.index(FLOOR) + 1}: {FLOOR}.", f"- {FLOOR} ({FLOOR_NOTE})")
_POLICY_LINE = f"- {FLOOR}: {FLOOR_NOTE}"
_STANDS = "The floor is judged under every policy"
_REWORD = (
    "Say it without naming both minors and sexual content in one line (`sex education` and "
    "`sexual health` are fine); leave prohibitions out, the floor stands by itself."
)


def assert_floor(rubric: Rubric) -> None:
    """Refuse a rubric that does not judge the floor, however it came about.

    Raises:
        PolicyError: the floor's name or line is missing, or stands among what is allowed.
    """
    if FLOOR not in rubric.categories:
        raise _missing(rubric, "its category is not among the names the model may answer")
    if rubric.mode == "builtin":
        if rubric.text is not None:
            raise _missing(rubric, "the stock taxonomy was replaced by a text")
        return
    lines = (rubric.text or "").split("\n")
    if rubric.mode == "taxonomy":
        if not any(line in _TAXONOMY_LINES for line in lines):
            raise _missing(rubric, "its line is not in the taxonomy")
        return
    try:
        forbidden = lines.index("Disallowed Behaviors:")
        place = lines.index(_POLICY_LINE, forbidden)
    except ValueError:
        raise _missing(rubric, "its line is not in the policy") from None
    if "Allowed Behaviors:" in lines[:place]:
        raise _missing(rubric, "its line stands among what is allowed")


def _missing(rubric: Rubric, why: str) -> PolicyError:
    return PolicyError(
        f"the {rubric.mode} rubric does not judge `{FLOOR}`: {why}",
        fix="Build rubrics with worker.policy.passes only.",
    )


def check_floor(policy: Policy, problems: Problems) -> None:
    """Report everything in a policy that suppresses, renames, lowers or carves out the floor."""
    _check_builtin(policy, problems)
    _check_actions(policy, problems)
    _check_custom(policy, problems)
    if lifts_ban(policy.description):
        problems.add(("description",), "it carves the floor out", f"{_STANDS}. {_REWORD}")


def _check_builtin(policy: Policy, problems: Problems) -> None:
    for index, name in enumerate(policy.builtin.suppress):
        if name == FLOOR:
            where = ("builtin", "suppress", index)
            problems.add(where, f"`{FLOOR}` cannot be suppressed", f"{_STANDS}: delete the line.")
    severity = policy.builtin.severity.get(FLOOR)
    if severity not in (None, FLOOR_SEVERITY):
        problem = f"the severity of `{FLOOR}` is always {FLOOR_SEVERITY}"
        problems.add(("builtin", "severity", FLOOR), problem, f"{_STANDS}: delete the line.")


def _check_actions(policy: Policy, problems: Problems) -> None:
    action = policy.actions.severity.get(FLOOR_SEVERITY)
    if action in ("allow", "flag"):
        problems.add(
            ("actions", "severity", FLOOR_SEVERITY),
            f"`{FLOOR_SEVERITY}` is the floor's severity: `{action}` would let it through",
            "Choose hold or block; give categories that may pass another severity.",
        )


def _check_custom(policy: Policy, problems: Problems) -> None:
    custom = policy.custom
    if custom is None:
        return
    for index, line in enumerate(custom.allowed):
        if carves_out(line):
            where = ("custom", "allowed", index)
            problems.add(where, "it carves the floor out", f"{_STANDS}. {_REWORD}")
    for index, line in enumerate(custom.disallowed):
        if lifts_ban(line):
            where = ("custom", "disallowed", index)
            problems.add(where, "its exception carves the floor out", f"{_STANDS}. {_REWORD}")
    for index, category in enumerate(custom.taxonomy):
        name = ("custom", "taxonomy", index, "name")
        if is_floor_name(category.name):
            problem = f"`{category.name}` is the floor's own category"
            problems.add(name, problem, f"{_STANDS} without being listed: delete the entry.")
        elif means_floor(category.name) and category.severity != FLOOR_SEVERITY:
            level = ("custom", "taxonomy", index, "severity")
            problem = f"`{category.name}` means the floor, whose severity is always critical"
            problems.add(level, problem, f"Write `severity: {FLOOR_SEVERITY}`. {_STANDS}.")
        elif lifts_ban(f"{category.name}: {category.note}"):
            note = ("custom", "taxonomy", index, "note")
            problems.add(note, "its exception carves the floor out", f"{_STANDS}. {_REWORD}")


# The floor's name, and whatever means it.

MAX_NAME = 80
"""Characters of a category's name; a longer text is a sentence, and says more than one thing."""

_MARKS = re.compile(r"[\u0300-\u036f]")
_LETTERS_FOR = str.maketrans("013457@$!|", "oieastasii")
"""Digits and signs that are written for letters."""
_OWN_NAMES = frozenset(
    f"{code}{name}{plural}"
    for code in ("", f"s{BUILTIN.index(FLOOR) + 1}")
    for name in ("sexualminor", "minorsexual")
    for plural in ("", "s")
) | {f"s{BUILTIN.index(FLOOR) + 1}"}
_OWN_WORDS = re.compile(
    r"\bsexual(?: content| contents)?(?: (?:involving|with|of|about))? minors?\b"
)


@lru_cache(maxsize=4096)
def is_floor_name(name: str) -> bool:
    """Whether a category name is the floor's own, in any spelling, alone or beside others.

    Case, width, brackets, quotes, emphasis, codes, invisible characters, lookalikes, accents and
    digits written for letters count for nothing.
    """
    for view in _views(name):
        words = " ".join("".join(each if each.isalnum() else " " for each in view).split())
        if _OWN_WORDS.search(words) or words.replace(" ", "") in _OWN_NAMES:
            return True
    return False


@lru_cache(maxsize=4096)
def means_floor(name: str) -> bool:
    """Whether a category means the floor, under its own name or any other in twelve languages.

    What does is graded as the floor is. Names of up to ``MAX_NAME`` characters are looked at for
    their meaning; of longer texts, which are sentences of a policy, only the floor's own name is.
    """
    if is_floor_name(name):
        return True
    return len(name) <= MAX_NAME and any(
        carves_out(view) or carves_out(_separated(view)) for view in _views(name)
    )


def _views(name: str) -> tuple[str, ...]:
    """A name as it is compared: folded, and with what stands for other letters replaced."""
    folded = fold(unmasked(name))
    plain = _MARKS.sub("", unicodedata.normalize("NFD", folded))
    joined = _spaced_letters(plain)
    return tuple(dict.fromkeys((folded, plain, joined, joined.translate(_LETTERS_FOR))))


def _separated(view: str) -> str:
    """Signs between words are blanks: ``child_sexual-content``."""
    return " ".join("".join(each if each.isalnum() else " " for each in view).split())


def _spaced_letters(text: str) -> str:
    """``s e x u a l`` and ``s.e.x.u.a.l`` written together."""
    return _SPACED.sub(lambda match: "".join(filter(str.isalnum, match[0])), text)


_SPACED = re.compile(r"(?<!\w)\w(?:[ ._*-]\w){2,}(?!\w)")
