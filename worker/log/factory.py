"""From settings to the log they name. Kafka's client is imported only where it is used."""

from __future__ import annotations

from worker.clock import Clock
from worker.log.admin import LocalAdmin, TopicAdmin, output_topics
from worker.log.base import Log
from worker.log.local.log import LocalLog
from worker.log.reader import LocalReader, TopicReader
from worker.log.writer import LocalWriter, TopicWriter
from worker.settings import Settings


def open_log(settings: Settings, *, clock: Clock | None = None) -> Log:
    """The group consumer with atomic commits; not started yet."""
    if settings.log.backend == "local":
        return LocalLog(
            settings.log.directory,
            settings.kafka.group_id,
            outputs=output_topics(settings),
            fsync=settings.log.fsync,
        )
    from worker.log.kafka.log import KafkaLog

    return KafkaLog(settings, clock=clock)


def open_reader(settings: Settings) -> TopicReader:
    """``async with open_reader(settings) as reader: async for record in reader.read(topic)``."""
    if settings.log.backend == "local":
        return LocalReader(settings.log.directory)
    from worker.log.kafka.tools import KafkaReader

    return KafkaReader(settings)


def open_writer(settings: Settings) -> TopicWriter:
    """``async with open_writer(settings) as writer: await writer.write(outputs)``."""
    if settings.log.backend == "local":
        return LocalWriter(settings.log.directory, fsync=settings.log.fsync)
    from worker.log.kafka.tools import KafkaWriter

    return KafkaWriter(settings)


def open_admin(settings: Settings) -> TopicAdmin:
    """``async with open_admin(settings) as admin: await admin.topics()``."""
    if settings.log.backend == "local":
        return LocalAdmin(settings.log.directory)
    from worker.log.kafka.tools import KafkaAdmin

    return KafkaAdmin(settings)
