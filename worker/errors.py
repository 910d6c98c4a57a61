"""The one error tree. Every error carries a stable code; its message names the field and the fix.

``WorkerError``
├── ``ConfigurationError``     settings or policies are wrong: the command ends before it starts
│   └── ``PolicyError``        a policy file is wrong: file, line, field, fix
├── ``UnreadableRecord``       one record is no event: it goes to the dead-letter topic
├── ``Undecided``              one event cannot be judged: its verdict says so and why
├── ``DependencyUnavailable``  a whole dependency is away: pause and retry, no event is blamed
└── ``FatalError``             this process cannot go on: end it and let a new one take over
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import indent

from worker.codes import DeadLetterCode, UndecidedReason


class WorkerError(Exception):
    """Base of all errors the worker raises on purpose."""

    code: str = "worker_error"


class ConfigurationError(WorkerError):
    """Settings that cannot work, found before anything started."""

    code = "configuration"


class PolicyError(ConfigurationError):
    """A policy that cannot be used. ``file``, ``line`` (from 1) and ``field`` say where.

    ``excerpt`` is the line itself with a caret beneath, where that helps.
    """

    code = "policy"

    def __init__(
        self,
        problem: str,
        *,
        fix: str,
        file: str = "",
        line: int = 0,
        field: str = "",
        excerpt: str = "",
    ) -> None:
        self.problem, self.fix, self.file, self.line, self.field = problem, fix, file, line, field
        self.excerpt = excerpt
        self._all: tuple[PolicyError, ...] = ()
        where = ":".join(str(part) for part in (file, line or "") if part)
        what = f"{field}: {problem}" if field else problem
        said = f"{where}: {what}. {fix}" if where else f"{what}. {fix}"
        super().__init__(f"{said}\n{excerpt}" if excerpt else said)

    @property
    def problems(self) -> tuple[PolicyError, ...]:
        """Every problem this error reports, one error each; itself where it is the only one."""
        return self._all or (self,)

    @classmethod
    def of(cls, errors: Sequence[PolicyError]) -> PolicyError:
        """One error for all ``errors`` (at least one); its message lists them, one a line."""
        problems = tuple(part for error in errors for part in error.problems)
        first = problems[0]
        if len(problems) == 1:
            return first
        together = cls(
            first.problem,
            fix=first.fix,
            file=first.file,
            line=first.line,
            field=first.field,
            excerpt=first.excerpt,
        )
        together._all = problems
        lines = "\n".join(indent(str(problem), "  ") for problem in problems)
        together.args = (f"{len(problems)} problems:\n{lines}",)
        return together


class UnreadableRecord(WorkerError):
    """A record that is no event: its original bytes go to the dead-letter topic."""

    def __init__(self, code: DeadLetterCode, *, field: str = "", detail: str = "") -> None:
        self.code = code
        self.field = field
        self.detail = detail
        super().__init__(": ".join(part for part in (code.value, field, detail) if part))


class Undecided(WorkerError):
    """One event (never its neighbours) that cannot be judged.

    ``content`` says whether anything that a person sees or reads went unjudged by it; a malformed
    time, say, is no content.
    """

    def __init__(
        self,
        reason: UndecidedReason,
        *,
        field: str = "",
        detail: str = "",
        content: bool = True,
    ) -> None:
        self.code = reason
        self.reason = reason
        self.field = field
        self.detail = detail
        self.content = content
        super().__init__(": ".join(part for part in (reason.value, field, detail) if part))


class DependencyUnavailable(WorkerError):
    """A whole dependency (``store``, ``judge``, ``log``) is away: retry, blame no event."""

    code = "dependency_unavailable"

    def __init__(self, dependency: str, detail: str = "") -> None:
        self.dependency = dependency
        self.detail = detail
        super().__init__(f"{dependency} is unavailable: {detail}" if detail else dependency)


class FatalError(WorkerError):
    """The process must end (non-zero) and be replaced; the message says what to do."""

    code = "fatal"
