"""A verdict for people: what it is, why, and where it came from, in a few lines."""

from __future__ import annotations

import click

from worker.contracts.verdict import SideVerdict, Verdict

COLOURS = {"safe": "green", "unsafe": "red", "undecided": "yellow"}


def headline(verdict: Verdict) -> str:
    """Outcome, action and reason on one line, coloured where the terminal can."""
    word = click.style(f"{verdict.outcome:9}", fg=COLOURS[verdict.outcome], bold=True)
    # A category that the built-in and the custom pass both found is named once.
    why = ", ".join(dict.fromkeys(category.name for category in verdict.categories))
    if verdict.undecided_reason:
        why = " ".join(filter(None, (verdict.undecided_reason, verdict.undecided_detail)))
    elif verdict.suppressed:
        why = f"suppressed: {', '.join(verdict.suppressed)}"
    return f"{word} {verdict.action:5}  {why}".rstrip()


def print_verdict(verdict: Verdict) -> None:
    """Print one verdict with its scores, images, reasoning and provenance."""
    click.echo(headline(verdict))
    sides = [("user", verdict.user), ("response", verdict.response)]
    scores = [f"{name} {_side(side)}" for name, side in sides if side is not None]
    if scores:
        click.echo(f"  {'  '.join(scores)}")
    for image in verdict.images:
        seen = image.error or (
            f"{image.label} {image.score:.2f}" if image.score is not None else ""
        )
        click.echo(f"  image {image.uri}: {seen}")
    if verdict.reasoning is not None:
        trace = verdict.reasoning.trace or ""
        skipped = f" [{verdict.reasoning.skipped}]" if verdict.reasoning.skipped else ""
        click.echo(f"  reasoning: {trace}{skipped}")
    if verdict.neutralised:
        click.echo(f"  control strings defused: {', '.join(verdict.neutralised)}")
    if verdict.folded:
        click.echo(f"  read as a person sees it: {', '.join(verdict.folded)}")
    if verdict.context.included or verdict.context.omitted:
        used = verdict.context
        click.echo(f"  context: {used.included} earlier turns read, {used.omitted} left out")
    policy, model = verdict.policy, verdict.model
    click.secho(
        f"  policy {policy.name} v{policy.version} {policy.sha256[:12]}   "
        f"model {model.id}@{model.revision[:12]} {model.numerics}   "
        f"{verdict.timings_ms.total:.0f} ms",
        dim=True,
    )


def _side(side: SideVerdict) -> str:
    return f"{side.label} (P(unsafe) {side.score:.3f})"
