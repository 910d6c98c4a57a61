"""What the demonstration prints: for people in colour, for programs as JSON lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import click
import msgspec

from moderation_tools.demo.scenario import Scripted
from worker.cli.pretty import headline
from worker.contracts.dead_letter import DeadLetter
from worker.contracts.encode import encode
from worker.contracts.verdict import Verdict


class Show:
    """Counts and prints. ``quarantined`` is counted by the caller."""

    def __init__(self, records: Sequence[Scripted], *, as_json: bool) -> None:
        self._records = records
        self._as_json = as_json
        self._script = {name: record for record in records if (name := _event_id(record))}
        self._outcomes: Counter[str] = Counter()
        self._surprises: list[str] = []
        self._dead_letters = 0
        self.quarantined = 0

    @property
    def complete(self) -> bool:
        """Whether every record of the script came back."""
        return self._seen >= len(self._records)

    @property
    def _seen(self) -> int:
        return self._outcomes.total() + self._dead_letters

    def note(self, text: str) -> None:
        """Progress, for people only."""
        if not self._as_json:
            click.secho(text, dim=True)

    def verdict(self, verdict: Verdict) -> None:
        """One verdict as it comes."""
        self._outcomes[verdict.outcome] += 1
        scripted = self._script.get(verdict.event_id)
        expected = scripted is None or scripted.expect == verdict.outcome
        note = scripted.note if scripted else ""
        if not expected and scripted is not None:
            self._surprises.append(f"{verdict.event_id} ({note}): scripted {scripted.expect}")
        if self._as_json:
            click.echo(encode(verdict))
            return
        mark = "" if expected else click.style("  (not as scripted)", fg="magenta")
        policy = click.style(f"{verdict.policy.name:20}", dim=True)
        click.echo(f"{self._count()} {policy} {headline(verdict)}  {_quote(note)}{mark}")
        if verdict.reasoning is not None and verdict.reasoning.trace:
            click.secho(f"{'':30} {verdict.reasoning.trace}", dim=True)

    def dead_letter(self, letter: DeadLetter) -> None:
        """One record that is no event."""
        self._dead_letters += 1
        if self._as_json:
            click.echo(msgspec.json.encode({"dead_letter": letter}))
            return
        word = click.style("dead letter", fg="cyan", bold=True)
        click.echo(f"{self._count()} {'':20} {word}      {letter.code} {letter.field}".rstrip())

    def summary(self, seconds: float) -> None:
        """The last line, or the last lines."""
        numbers = {
            "events": len(self._records),
            "verdicts": self._outcomes.total(),
            "safe": self._outcomes["safe"],
            "unsafe": self._outcomes["unsafe"],
            "undecided": self._outcomes["undecided"],
            "quarantined": self.quarantined,
            "dead_letters": self._dead_letters,
            "seconds": round(seconds, 2),
        }
        if self._as_json:
            click.echo(json.dumps({"summary": numbers}))
            return
        click.echo()
        click.echo("   ".join(f"{name} {value}" for name, value in numbers.items()))
        lost = len(self._records) - self._seen
        if lost:
            click.secho(f"{lost} records did not come back", fg="red")
        else:
            click.echo("every record ended in exactly one place")
        for surprise in self._surprises:
            click.secho(f"not as scripted: {surprise}", fg="magenta")

    def _count(self) -> str:
        return click.style(f"[{self._seen:3}/{len(self._records)}]", dim=True)


def _event_id(record: Scripted) -> str | None:
    if record.expect == "dead_letter" or record.value is None:
        return None
    return str(json.loads(record.value)["id"])


def _quote(note: str) -> str:
    return click.style(f"- {note}", dim=True) if note else ""
