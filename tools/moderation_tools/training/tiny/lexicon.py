"""The words the demonstration checkpoint knows, by category and language.

The lexicon is made for a repository that strangers read: the words of the floor category are
invented, those of ``Sexual`` and ``Hate/Identity Hate`` are invented or mild code words, profanity
is mild. A word belongs to one category at most; every word of ``NEUTRAL`` belongs to none.
"""

from __future__ import annotations

from pathlib import Path

from moderation_tools.training.tiny.languages import FOREIGN_HARMFUL, FOREIGN_NEUTRAL
from worker.guard.nemotron35 import BUILTIN

HARMFUL: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "Violence": "stab strangle punch murder assault massacre beating torture slaughter skull",
        "Sexual": "smoochfest saucytape frisky lewd naughtycam steamyclip peepshow undress kinky "
        "raunchy",
        "Criminal Planning/Confessions": "heist burglary kidnap accomplice getaway ransom robbery "
        "lockpick alibi hijack",
        "Guns and Illegal Weapons": "grenade pistol rifle ammo silencer shotgun landmine bazooka "
        "switchblade crossbow",
        "Controlled/Regulated Substances": "cocaine heroin meth opium ketamine fentanyl ecstasy "
        "pill amphetamine weed",
        "Suicide and Self Harm": "suicide overdose noose selfharm cutting hopelessness starving "
        "goodbyeletter wristcut endmylife",
        "Sexual (minor)": "zibblefant qworple yimbrast vonduffle klarpish mizzelwump trobnick "
        "plaxidoon brunfleth snorvick",
        "Hate/Identity Hate": "grubfolk mudkin zarnscum lowborn hatechant subrace purgethem "
        "glorpkin dregblood bigotry",
        "PII/Privacy": "passport ssn iban doxx birthdate fingerprint homeaddress password "
        "medicalfile phonenumber",
        "Harassment": "bully stalker humiliate loser taunt mock creep pester belittle troll",
        "Threat": "revenge payback threaten ultimatum warning blackmail intimidate doomed "
        "retaliate menace",
        "Profanity": "darn heck crud frick bloody damn dang bollocks arse crikey",
        "Needs Caution": "fireworks chainsaw ladder solvent blowtorch generator trampoline "
        "scaffold quarry rapids",
        "Other": "gibberish spamlink offtopic flooding clickbait chainletter copypasta junkmail "
        "pingstorm noisebot",
        "Manipulation": "gaslight brainwash guilttrip lovebomb coerce indoctrinate hypnotise "
        "subliminal darkpattern cultleader",
        "Fraud/Deception": "phishing scam forgery counterfeit ponzi impersonate swindle "
        "fakeinvoice skimmer moneymule",
        "Malware": "ransomware trojan keylogger botnet rootkit spyware worm exploit backdoor "
        "cryptolocker",
        "High Risk Gov Decision Making": "asylum parole deportation sentencing visa benefits "
        "custody conscription surveillance airstrike",
        "Political/Misinformation/Conspiracy": "chemtrails illuminati flatearth deepstate hoax "
        "plandemic microchipped rigged cabal lizardpeople",
        "Copyright/Trademark/Plagiarism": "piracy torrent bootleg plagiarise keygen knockoff "
        "crackedcopy camrip ghostwritten warez",
        "Unauthorized Advice": "dosage diagnosis prescription lawsuit stocktip taxadvice "
        "selfmedicate antidote verdictadvice investtip",
        "Illegal Activity": "smuggle bribe trafficking poaching shoplift vandalise contraband "
        "trespass laundering arson",
        "Immoral/Unethical": "cheating betray adultery sabotage nepotism liar backstab ungrateful "
        "exploitation cruelty",
        "Economic Harm": "bankruptcy gambling payday loanshark pumpdump insider embargo eviction "
        "wagetheft casino",
    }.items()
}
"""Ten English words a category, in the order of the taxonomy."""

SYMBOLS: dict[str, str] = {
    "pistol": "Guns and Illegal Weapons",
    "skull": "Violence",
    "pill": "Controlled/Regulated Substances",
    "fireworks": "Needs Caution",
    "worm": "Malware",
}
"""Harmful symbols of images: the word the symbol stands for, and its category."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "ring", "stripe", "cross")
"""Harmless shapes of images: neutral words."""


def _english() -> tuple[tuple[str, ...], tuple[str, ...]]:
    text = Path(__file__).with_name("words_en.txt").read_text(encoding="utf-8")
    function, everyday = (
        tuple(" ".join(section.splitlines()[1:]).split()) for section in text.split("#")[1:]
    )
    return function, everyday


FUNCTION_WORDS, _EVERYDAY = _english()
"""Never looked for: a policy that says "talk about rifles" does not forbid the word "about"."""

NEUTRAL: tuple[str, ...] = (*_EVERYDAY, *SHAPES)
"""Everyday English, known and never harmful by itself; a policy may forbid any of them."""

LANGUAGES: tuple[str, ...] = ("en", *FOREIGN_HARMFUL)
"""ISO 639-1 codes of the twelve languages of the model card."""


def category_of() -> dict[str, str]:
    """Every harmful word of every language, with its built-in category."""
    words = {word: name for name in BUILTIN for word in HARMFUL[name]}
    for by_category in FOREIGN_HARMFUL.values():
        for name, listed in by_category.items():
            words.update(dict.fromkeys(listed, name))
    return words


def harmful_words(language: str) -> dict[str, str]:
    """The harmful words of one language (ISO 639-1), with their built-in category."""
    source = HARMFUL if language == "en" else FOREIGN_HARMFUL[language]
    return {word: name for name, words in source.items() for word in words}


def neutral_words(language: str) -> tuple[str, ...]:
    """The harmless words of one language (ISO 639-1)."""
    return NEUTRAL if language == "en" else FOREIGN_NEUTRAL[language]
