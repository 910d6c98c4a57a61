"""One worker process: its parts opened in order, run together, drained and closed in reverse.

Faust is not needed here: ``worker/app.py`` puts this into its shell.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from worker import __version__
from worker.accounting.recorder import Accounts
from worker.clock import Clock, SystemClock
from worker.concurrency import together
from worker.contracts.event import judged_turn
from worker.errors import ConfigurationError, DependencyUnavailable, PolicyError, WorkerError
from worker.judge.base import Judge
from worker.judge.cache import cache_figures
from worker.judge.factory import open_judge
from worker.judge.identity import refuse_demonstration
from worker.judge.statistics import kept_by
from worker.judge.watchdog import Watchdog
from worker.log.admin import output_topics
from worker.log.base import LogActivity
from worker.log.factory import open_log
from worker.log.runner import StreamRunner
from worker.media.factory import open_store
from worker.media.fetch import ImageFetcher
from worker.media.local_files import LocalFileFetcher
from worker.policy.examples import ExampleResult
from worker.policy.model import Policy
from worker.policy.passes import passes
from worker.policy.registry import PolicyRegistry
from worker.processing.evaluator import Evaluator, Fetcher, open_evaluator
from worker.processing.examples import ExampleRunner
from worker.processing.processor import OutputTopics, Pipeline, PipelineLimits, Processed
from worker.settings import Settings
from worker.telemetry import instruments
from worker.telemetry.export import Telemetry, configure
from worker.telemetry.loop_probe import LoopProbe
from worker.telemetry.names import Attribute
from worker.telemetry.redact import publish
from worker.web.console import ConsoleView
from worker.web.health import Health, limits_of, live, ready
from worker.web.recent import Recent
from worker.web.snapshot import WorkerSnapshot, policy_rows

# The gauges that are read off a running service whenever somebody collects.


def observe(
    snapshot: Callable[[], WorkerSnapshot],
    health: Callable[[], Health],
    policies: PolicyRegistry,
) -> None:
    """Watch the service from its start: build, model, policies, readiness and what it consists of,
    stalled batch, dependencies away, policy problems, the log."""
    away = _Away()
    instruments.batch_stalled.watch(lambda: [(snapshot().stalled_batch_s, {})])
    instruments.ready.watch(lambda: [(1 if health().ok else 0, {})])
    instruments.check.watch(
        lambda: [(int(ok), {Attribute.CHECK: name}) for name, ok in health().checks.items()]
    )
    instruments.build_info.watch(lambda: [(1, {Attribute.BUILD: snapshot().version})])
    instruments.model_info.watch(lambda: _model(snapshot()))
    instruments.policy_info.watch(lambda: _policies(snapshot()))
    instruments.policy_problems.watch(lambda: _problems(policies))
    instruments.paused.watch(lambda: away.seconds(snapshot()))
    instruments.log_silence.watch(lambda: _silences(snapshot()))


def forget() -> None:
    """Watch no longer: the service is closed."""
    for gauge in (
        instruments.batch_stalled,
        instruments.ready,
        instruments.check,
        instruments.build_info,
        instruments.model_info,
        instruments.policy_info,
        instruments.policy_problems,
        instruments.paused,
        instruments.log_silence,
    ):
        gauge.watch(None)


def _model(snapshot: WorkerSnapshot) -> list[instruments.Observation]:
    if (model := snapshot.model) is None:
        return []
    labels: dict[str, str | int | bool] = {
        Attribute.MODEL: model.id,
        Attribute.REVISION: model.revision,
        Attribute.ADAPTER: model.adapter or "",
        Attribute.TEMPLATE: model.template_sha256,
        Attribute.NUMERICS: model.numerics,
    }
    return [(1, labels)]


def _policies(snapshot: WorkerSnapshot) -> list[instruments.Observation]:
    return [
        (
            1,
            {
                Attribute.POLICY: policy.name,
                Attribute.POLICY_VERSION: policy.version,
                Attribute.POLICY_SHA: policy.sha256,
            },
        )
        for policy in snapshot.policies
    ]


def _problems(policies: PolicyRegistry) -> list[instruments.Observation]:
    """Problems by the policy whose file has them; without a name where none is live from there."""
    names = {policy.file: name for name, policy in policies.snapshot.by_name.items()}
    counts = Counter(names.get(problem.file, "") for problem in policies.problems)
    counts[""] += len(policies.unready_topics())
    return [(counts[name], {Attribute.POLICY: name}) for name in sorted({"", *names.values()})]


def _silences(snapshot: WorkerSnapshot) -> list[instruments.Observation]:
    """Seconds since the log last answered, by what it was asked for."""
    activity = snapshot.stream.log if snapshot.stream else LogActivity()
    moments = {"fetch": activity.fetched_at, "commit": activity.committed_at}
    return [
        (max(0.0, snapshot.now - moment), {Attribute.KIND: kind})
        for kind, moment in moments.items()
        if moment is not None
    ]


class _Away:
    """Since when each dependency has been away, as far as collections have seen it."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def seconds(self, snapshot: WorkerSnapshot) -> list[instruments.Observation]:
        paused = set(snapshot.stream.paused_dependencies if snapshot.stream else ())
        paused.update(snapshot.waits_for)
        self._since = {name: self._since.get(name, snapshot.now) for name in paused}
        return [
            (snapshot.now - since, {Attribute.DEPENDENCY: name})
            for name, since in self._since.items()
        ]


logger = logging.getLogger(__name__)

COLLECT_EVERY = 50_000
"""Objects made before cycles are looked for. Thousands of events in flight are no garbage: at
Python's 700, every tenth microsecond of the stream went into walking them."""
RETRY_JUDGE_S = 2.0
"""Wait between attempts to run policies' examples while the judge is away."""


class WorkerService:
    """Everything one process needs. ``open`` it, then ``run`` until ``stop`` or a fatal error.

    Policies and topics are read when it is made, so that wrong settings end a command before
    anything is loaded. ``judge`` stands in for the one that the settings name.

    Raises:
        ConfigurationError: settings or policies that cannot work.
    """

    def __init__(
        self, settings: Settings, clock: Clock | None = None, judge: Judge | None = None
    ) -> None:
        if judge is None:
            refuse_demonstration(settings)
        self._judge_is_ours = judge is None
        self.settings = settings
        self.clock = clock or SystemClock()
        self._began = self.clock.monotonic()
        self._warm = False
        self._waits_for: tuple[str, ...] = ()
        self._stopping = asyncio.Event()
        self._closed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._telemetry: Telemetry | None = None
        self.recent = Recent(
            self.clock,
            show_content=settings.web.show_content,
            max_batch=settings.judge.max_batch,
        )
        self.judge = judge or open_judge(settings.judge)
        self.fetcher = ImageFetcher(
            open_store(settings.store, self.clock), settings.store, self.clock
        )
        self.policies = self._open_policies()
        self.pipeline = self._pipeline()
        self.runner = StreamRunner(
            open_log(settings, clock=self.clock),
            self.pipeline,
            self.policies.topics(),
            settings.stream,
            clock=self.clock,
            conversation=self.pipeline.conversation,
        )
        self._watchdog = Watchdog(self.judge.stalled_s, settings.judge.batch_deadline_s)
        self._probe = LoopProbe(self.clock)
        self._limits = limits_of(settings)

    def _open_policies(self) -> PolicyRegistry:
        settings = self.settings
        registry = PolicyRegistry(
            settings.policies.directory,
            check=self._before_live,
            reloaded=self._after_reload,
        )
        registry.load()
        registry.require(outputs=output_topics(settings))
        return registry

    def _pipeline(self) -> Pipeline:
        settings = self.settings
        return Pipeline(
            self._evaluator(self.fetcher),
            self.policies,
            OutputTopics(
                verdicts=settings.topics.verdicts,
                quarantine=settings.topics.quarantine,
                dead_letter=settings.topics.dead_letter,
                shadow=settings.topics.shadow,
            ),
            PipelineLimits(
                max_event_bytes=settings.stream.max_event_bytes,
                max_output_bytes=settings.kafka.max_message_bytes,
                max_images=settings.store.max_images,
            ),
            self.clock,
            build=__version__,
            group=settings.kafka.group_id,
            record=Accounts(self.clock, self._remember, settings.telemetry.event_log),
        )

    def _evaluator(self, fetcher: Fetcher) -> Evaluator:
        return open_evaluator(self.settings.judge, self.judge, fetcher, self.clock)

    async def _before_live(self, policy: Policy) -> Sequence[ExampleResult]:
        """What has to hold and to be warm before a policy judges its first event."""
        for each in passes(policy):
            try:
                await self.judge.prepare(each.rubric, each.adapter)
            except ConfigurationError as error:
                raise PolicyError(
                    str(error), fix="It stays out until then.", file=policy.file
                ) from error
            self._same_adapter(policy, each.adapter)
        if not self.settings.policies.check_examples:
            return ()
        evaluator = self._evaluator(LocalFileFetcher(self.settings.store))
        family = self.settings.judge.family
        return await ExampleRunner(evaluator, self.judge.model(), family).check(policy)

    def _same_adapter(self, policy: Policy, adapter: str | None) -> None:
        """Refuse a policy whose adapter is another one than the judge has loaded from its place."""
        loaded = self.judge.model(adapter).adapter if adapter is not None else None
        read = f"sha256:{policy.adapter_sha256}"
        if loaded is not None and loaded.startswith("sha256:") and loaded != read:
            raise PolicyError(
                "the judge has loaded another adapter than lies there now",
                fix="Give a new adapter a directory of its own.",
                file=policy.file,
                field="adapter",
            )

    async def _after_reload(self, live: Collection[Policy]) -> None:
        """Policies in force count as used last: where the device's room is short, the versions
        they replaced give way first."""
        for policy in live:
            for each in passes(policy):
                with contextlib.suppress(WorkerError):  # they were prepared before, and are judged
                    await self.judge.prepare(each.rubric, each.adapter)

    def _remember(self, processed: Processed) -> None:
        evaluation, event = processed.evaluation, processed.event
        if evaluation is None or event is None:
            record = processed.record
            code = str(processed.unreadable.code) if processed.unreadable else ""
            self.recent.add_dead_letter(code, record.topic, record.partition, record.offset)
            return
        decision = evaluation.decision
        turn = judged_turn(event) if self.settings.web.show_content else None
        self.recent.add(
            evaluation.verdict,
            held=decision.quarantined,
            text=turn.user.text if turn else "",
            response=turn.response.text if turn and turn.response else "",
            traces=decision.traces,
        )

    async def run(self) -> None:
        """Load the model, make the policies live, then judge until ``stop``.

        Raises:
            FatalError: this process must end; nothing that was read is lost.
        """
        settings = self.settings
        self._telemetry = configure(settings.telemetry, __version__)
        # From the start: that a worker is not ready yet is a figure too.
        observe(self.snapshot, lambda: self.health()[1], self.policies)
        self._probe.start()
        self._watchdog.start()
        try:
            await self.fetcher.start()
            if settings.judge.backend == "remote":
                self._waits_for = ("judge",)  # for as long as its server does not answer
            # A log that cannot work is said before a model was loaded for it, and one that is
            # away is waited for meanwhile.
            await together([self.runner.connect(), self.judge.start()])
            self._waits_for = ()
            if self._judge_is_ours:  # what the hub sent says only now what it is
                refuse_demonstration(settings, self.judge.model().id)
            await self._activate()
            self._warm = True
            publish((self.judge.model().id, *self.policies.topics()))
            publish(self.policies.snapshot.by_name)
            _collect_less()
            if self._stopping.is_set():
                return
            watch = self.policies.watch(settings.policies.reload_s)
            self._tasks.append(asyncio.create_task(watch, name="policy-watch"))
            await self.runner.run()
        finally:
            try:
                await self._close()
            finally:
                self._closed.set()

    async def _activate(self) -> None:
        """Make the policies live; wait while the judge is away, unless told to stop."""
        while not self._stopping.is_set():
            try:
                await self.policies.activate()
                self._waits_for = ()
                return
            except DependencyUnavailable as error:
                self._waits_for = ("judge",)
                logger.warning("policies wait for the judge: %s", error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), RETRY_JUDGE_S)

    async def stop(self) -> None:
        """Drain within ``stream.drain_s`` and close everything; ``run`` has ended on return.

        While the model is still loading there is nothing to drain, and nothing is waited for.
        """
        self._stopping.set()
        await self.runner.stop()
        if self._warm:
            await self._closed.wait()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pipeline.stop()
        forget()
        await self.judge.stop()  # watched to its end: a hung device call must not hang a stop
        self._watchdog.stop()
        await self.fetcher.stop()
        await self._probe.stop()
        if self._telemetry is not None:
            await asyncio.to_thread(self._telemetry.shutdown)

    def snapshot(self) -> WorkerSnapshot:
        """This moment, for probes, console and metrics."""
        return WorkerSnapshot(
            now=self.clock.monotonic(),
            uptime_s=self.clock.monotonic() - self._began,
            version=__version__,
            group=self.settings.kafka.group_id,
            delivery=self.settings.delivery,
            model=self.judge.model() if self._warm else None,
            model_warm=self._warm,
            stalled_batch_s=self.judge.stalled_s(),
            loop_lag_s=self._probe.lag_s(),
            waits_for=self._waits_for,
            stream=self.runner.status(),
            policies=policy_rows(self.policies.snapshot),
            unready_topics=self.policies.unready_topics() if self._warm else (),
            policy_problems=tuple(str(problem) for problem in self.policies.problems),
        )

    def health(self) -> tuple[Health, Health]:
        """Live and ready, now."""
        snapshot = self.snapshot()
        return live(snapshot, self._limits), ready(snapshot, self._limits)

    def console(self, event_id: str = "") -> ConsoleView:
        """Everything the console shows, now; ``event_id`` is what somebody looks for."""
        if self._telemetry is not None:
            name = "moderation_judge_batch_contexts"
            count, contexts = self._telemetry.sums_of(f"{name}_count", f"{name}_sum")
            self.recent.batches(int(count), contexts)
        alive, able = self.health()
        return ConsoleView(
            snapshot=self.snapshot(),
            live=alive,
            ready=able,
            activity=self.recent.activity(),
            cache=cache_figures(self.judge),
            kept=kept_by(self.judge),
            show_content=self.settings.web.show_content,
            wanted=event_id,
            found=self.recent.find(event_id) if event_id else None,
        )

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Body and content type of ``/metrics``."""
        if self._telemetry is None:
            return b"", "text/plain"
        return self._telemetry.metrics_page(accept)


def _collect_less() -> None:
    """What was loaded stays: no collection looks at it again, and at what is in flight rarely."""
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 10, 10)
