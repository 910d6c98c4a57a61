"""The text a policy puts in front of the model: one string per pass, a pure function of the policy.

Three shapes exist, as the model was trained (model card of Nemotron 3.5 Content Safety):
the stock taxonomy (no text at all), a replaced taxonomy (``custom_taxonomy``, "mode B") and a free
policy (``custom_policy``, "mode A"). The floor's line stands in every one of them. The card's
"think step-by-step" sentence is left out of mode A, so that one prefix serves both THINK modes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from worker.guard.taxonomy import BUILTIN, FLOOR

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
        f"Disallowed Behaviors:\n{_bullets(forbidden)}\n"
    )
    if allowed:
        text += f"\nAllowed Behaviors:\n{_bullets(allowed)}\n"
    return text


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
