"""A log line says what happened, in which trace, and never what a user wrote."""

from __future__ import annotations

import io
import json
import logging
import warnings
from typing import Any

import msgspec
import orjson
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.canary import CANARY, assert_no_canary, hostile_text, logged
from tests.support.records import input_record
from tests.support.verdicts import make_verdict
from worker.accounting.event_log import canonical_line, log_dead_letter, log_event
from worker.clock import ManualClock
from worker.codes import DeadLetterCode, UndecidedReason
from worker.contracts.verdict import ImageVerdict, Reasoning
from worker.errors import (
    ConfigurationError,
    DependencyUnavailable,
    FatalError,
    Undecided,
    UnreadableRecord,
)
from worker.records import TopicPartition
from worker.settings import Settings, Telemetry
from worker.telemetry.export import configure
from worker.telemetry.logs import EXTRA_FIELDS, RepeatLimit, configure_logging
from worker.telemetry.names import Canonical, LogField
from worker.telemetry.redact import Public, publish, publish_settings
from worker.telemetry.tracing import event_span

logger = logging.getLogger("worker.tests")


class FullDisk(io.StringIO):
    def write(self, _: str, /) -> int:
        raise OSError(28, "No space left on device")


def test_an_event_is_judged_although_its_line_cannot_be_written() -> None:
    """A log on a full disk costs lines, not verdicts."""
    closed = io.StringIO()
    closed.close()
    for stream in (FullDisk(), closed):
        handler = configure_logging(Telemetry(), stream)
        log_event(make_verdict())
        logging.getLogger().removeHandler(handler)
        handler.close()


TEXT = Telemetry(log_format="text", log_level="debug")


def lines(stream: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_is_json_with_declared_fields_and_its_trace() -> None:
    """One object a line; inside an event it names the event's trace and span."""
    telemetry = configure(Telemetry(sample_ratio=1), "1", span_exporter=InMemorySpanExporter())
    with logged() as stream, event_span(input_record(b"{}"), "g") as span:
        logger.info("committed %d records", 7)
        context = span.span.get_span_context()
    telemetry.shutdown()
    (line,) = lines(stream)
    assert line["message"] == "committed 7 records"
    assert line["trace_id"] == format(context.trace_id, "032x")
    assert line["span_id"] == format(context.span_id, "016x")
    assert set(line) <= {v for k, v in vars(LogField).items() if not k.startswith("_")}


@pytest.mark.parametrize("settings", [Telemetry(log_level="debug"), TEXT])
def test_content_cannot_be_logged_by_accident(settings: Telemetry) -> None:
    """Whatever way a string takes into the logging module, content does not come out."""
    text = hostile_text()
    errors: list[BaseException] = [
        ValueError(text),
        UnreadableRecord(DeadLetterCode.NOT_JSON, field=text, detail=text),
        Undecided(UndecidedReason.IMAGE_MISSING, detail=text),
        DependencyUnavailable("store", text),
        OSError(2, text, text),
    ]
    with logged(settings) as stream:
        logger.error("one %s two %r", text, text)
        logger.error("%(text)s", {"text": text})
        logger.error("%d", text)
        logger.error("%s", {text: [text, (text,), text.encode("utf-8", "replace")]})
        logger.error("%s", input_record(text.encode("utf-8", "replace")))
        logger.error("extra", extra={"text": text, "message_text": text, Canonical.CODE: text})
        logging.getLogger("aiokafka.consumer").error("library %s", text)
        logging.getLogger("transformers").error(f"formatted already {text}")  # noqa: G004
        logging.getLogger("somebody.else").error(text)
        logging.getLogger("asyncio").error(f"Task failed\nfuture: <{text}>")  # noqa: G004
        logging.getLogger("root-less").error("%s", ValueError(text), exc_info=ValueError(text))
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(text, stacklevel=1)
        for error in errors:
            try:
                try:
                    raise error
                except type(error) as caught:
                    raise RuntimeError(text) from caught
            except RuntimeError:
                logger.exception("failed on %s", error)
    written = stream.getvalue()
    assert_no_canary(written)
    assert written.count("failed on") == 5
    assert "\x1b" not in written


def test_a_text_line_cannot_be_forged() -> None:
    """An id with a line break or a terminal's escape stays one line of plain characters."""
    hostile = "id\n12:00:00.000 error FORGED \x1b[2J\u202e"
    with logged(TEXT) as stream:
        log_event(make_verdict(event_id=hostile))
    assert len(stream.getvalue().splitlines()) == 1
    assert stream.getvalue().strip().isprintable()


def test_what_the_operator_chose_stays_readable() -> None:
    """Topics, groups, policies, numbers, paths' codes and our own errors are not redacted."""
    publish_settings(Settings())
    publish(["devtools"])
    with logged() as stream:
        logger.warning("joined %s as %s", "moderation.verdicts", "moderation-worker")
        logger.warning("policy %s of %s", "devtools", TopicPartition("devtools", 3))
        logger.warning("id %s", Public("moderation-worker-devtools-3"))
        logger.warning("stopped: %s", FatalError("the group is gone; run topics check"))
        logger.warning("refused: %s", ConfigurationError("stream.drain_s is too long"))
        logger.warning("away: %s", DependencyUnavailable("store", "x"))
        logger.warning("broke on %s", "ValueError")
    messages = [line["message"] for line in lines(stream)]
    assert messages == [
        "joined moderation.verdicts as moderation-worker",
        "policy devtools of ['devtools', 3]",
        "id moderation-worker-devtools-3",
        "stopped: FatalError: the group is gone; run topics check",
        "refused: ConfigurationError: stream.drain_s is too long",
        "away: DependencyUnavailable: store",
        "broke on ValueError",
    ]


def test_a_secret_of_the_settings_is_never_made_loggable() -> None:
    """Publishing the settings publishes what is a plain string there; a secret is none."""
    security = {"protocol": "SASL_SSL", "username": "worker", "password": "hunter2hunter2"}
    settings = Settings.model_validate({"kafka": {"security": security}})
    publish_settings(settings)
    with logged() as stream:
        logger.warning("%s %s", "hunter2hunter2", settings.kafka.security.password)
    assert "hunter2" not in stream.getvalue()


def test_content_is_logged_where_it_was_asked_for() -> None:
    """telemetry.content is a switch that works."""
    with logged(Telemetry(content=True)) as stream:
        logger.error("failed on %s", CANARY)
    assert CANARY in stream.getvalue()


def test_every_event_leaves_one_line_with_ids_codes_and_times() -> None:
    """The canonical line answers who, which policy, what, why, how long; and holds no content."""
    verdict = msgspec.structs.replace(
        make_verdict(),
        outcome="undecided",
        action="hold",
        undecided_reason="image_missing",
        undecided_detail=CANARY,
        images=(ImageVerdict(uri=f"s3://b/{CANARY}", error="image_missing"),),
        reasoning=Reasoning(mode="always", trace=CANARY),
    )
    with logged() as stream:
        log_event(verdict, bytes_in=512, tokens=90, age_ms=12.5)
    assert_no_canary(stream.getvalue())
    (line,) = lines(stream)
    event = line["event"]
    assert event["reason"] == "image_missing"
    assert event["image_errors"] == ["image_missing"]
    assert (event["bytes_in"], event["tokens"], event["age_ms"]) == (512, 90, 12.5)
    assert event["verdict_id"] == verdict.verdict_id
    declared = {v for k, v in vars(Canonical).items() if not k.startswith("_")}
    assert set(canonical_line(verdict)) <= declared


def test_a_dead_letter_leaves_a_line_with_its_code() -> None:
    """The field is left out: in a record that is no event, even names may be the user's."""
    with logged() as stream:
        error = UnreadableRecord(DeadLetterCode.WRONG_TYPE, field=CANARY, detail=CANARY)
        log_dead_letter(input_record(CANARY.encode()), error)
    assert_no_canary(stream.getvalue())
    (line,) = lines(stream)
    assert line["event"]["code"] == "wrong_type"
    assert line["event"]["offset"] == 7


def test_lone_surrogates_do_not_cost_the_line() -> None:
    """JSON cannot hold them; they are escaped instead of raising inside the logging module."""
    with logged() as stream:
        log_event(make_verdict(event_id="\ud800"))
    (line,) = lines(stream)
    assert line["event"]["event_id"] == "\\ud800"


def test_a_line_that_cannot_be_made_does_not_print_its_arguments() -> None:
    """The standard handler dumps message and arguments to standard error; ours names the logger."""

    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError(CANARY)

    with logged(Telemetry(content=True)) as stream:
        logging.getLogger("worker.x").error("%s", Unspeakable())
    assert stream.getvalue() == "a log line of worker.x could not be written\n"


def test_libraries_are_heard_from_warning_on_only() -> None:
    """Debugging the worker does not open the libraries' floodgates, nor their content."""
    with logged() as stream:
        for name in ("aiokafka.conn", "botocore.endpoint", "faust.app", "mode.services"):
            logging.getLogger(name).info("chatter")
        logger.debug("ours")
    assert [line["logger"] for line in lines(stream)] == ["worker.tests"]


def test_a_flood_of_one_warning_is_cut_and_counted() -> None:
    """Five a minute; the next window's first line says how many were left out. Others pass."""
    clock = ManualClock()
    limit = RepeatLimit(burst=5, window_s=60, clock=clock)

    def passes(message: str, level: int = logging.WARNING) -> bool:
        record = logging.LogRecord("n", level, "f", 1, message, (), None)
        passed = limit.filter(record)
        seen.append(record.__dict__.get(LogField.SUPPRESSED, 0))
        return passed

    seen: list[int] = []
    assert [passes("retry") for _ in range(20)].count(True) == 5
    assert passes("another")
    assert all(passes("event judged", logging.INFO) for _ in range(100))
    clock.advance(61)
    assert passes("retry")
    assert seen[-1] == 15


def test_extra_fields_are_an_allow_list_without_ids() -> None:
    """Ids stand in the canonical line, where they are named; nowhere else."""
    assert not EXTRA_FIELDS & {"event_id", "conversation_id", "tenant"}
    with logged() as stream:
        logger.info("note", extra={Canonical.PARTITION: 3, "unknown": 4})
    (line,) = lines(stream)
    assert line["partition"] == 3
    assert "unknown" not in orjson.dumps(line).decode()


def test_lines_about_the_worker_name_topic_dependency_and_error() -> None:
    """What the stream says of itself is readable though no argument was published."""
    extra = {"topic": "never.published", "dependency": "store", "partition": 3, "error": "OSError"}
    with logged(TEXT) as people:
        logger.warning("partition held", extra=extra)
        logger.warning("not a topic", extra={"topic": f"a {CANARY} b", "error": CANARY})
    assert_no_canary(people.getvalue())
    assert people.getvalue().count("never.published") == 1
    with logged() as stream:
        logger.warning("partition held", extra=extra)
    (line,) = lines(stream)
    assert (line["topic"], line["dependency"], line["partition"]) == ("never.published", "store", 3)
    assert line["error"] == {"type": "OSError"}
