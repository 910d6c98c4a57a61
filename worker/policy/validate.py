"""Checks across the sections of one policy: its examples fit it, the files it names exist."""

from __future__ import annotations

from pathlib import Path

from worker.policy.model import CustomPass, Example, Policy
from worker.policy.problems import Problems, suggestion
from worker.policy.taxonomy import BUILTIN, FLOOR, canonical_category


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
