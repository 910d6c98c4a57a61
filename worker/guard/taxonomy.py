"""The built-in taxonomy of Nemotron 3.5 Content Safety: 24 categories, in template order.

Source: the model's chat template (S1 to S24); other spellings are the Aegis 2.0 data set's and the
predecessor models', accepted wherever a name is read and never written.
"""

from __future__ import annotations

BUILTIN: tuple[str, ...] = (
    "Violence",
    "Sexual",
    "Criminal Planning/Confessions",
    "Guns and Illegal Weapons",
    "Controlled/Regulated Substances",
    "Suicide and Self Harm",
    "Sexual (minor)",
    "Hate/Identity Hate",
    "PII/Privacy",
    "Harassment",
    "Threat",
    "Profanity",
    "Needs Caution",
    "Other",
    "Manipulation",
    "Fraud/Deception",
    "Malware",
    "High Risk Gov Decision Making",
    "Political/Misinformation/Conspiracy",
    "Copyright/Trademark/Plagiarism",
    "Unauthorized Advice",
    "Illegal Activity",
    "Immoral/Unethical",
    "Economic Harm",
)

FLOOR = "Sexual (minor)"
"""The category no policy can suppress, rename or carve out."""

_ALIASES = {
    "guns/illegal weapons": "Guns and Illegal Weapons",
    "sexual minor": FLOOR,
    "high risk gov. decision making": "High Risk Gov Decision Making",
    "controlled/regulated substances": "Controlled/Regulated Substances",
    "controlled substances": "Controlled/Regulated Substances",
}
_BY_FOLDED = {name.casefold(): name for name in BUILTIN} | _ALIASES


def canonical_category(name: str) -> str | None:
    """The template's spelling of a built-in category, or None where it is not one.

    Accepts any case, the known other spellings and the bare codes ``S1`` to ``S24``.
    """
    folded = " ".join(name.split()).casefold()
    if folded.startswith("s") and folded[1:].isdigit():
        number = int(folded[1:])
        return BUILTIN[number - 1] if 1 <= number <= len(BUILTIN) else None
    return _BY_FOLDED.get(folded)
