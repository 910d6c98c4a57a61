"""From settings to the log they name. Kafka's client is imported only where it is used."""

from __future__ import annotations

from worker.clock import Clock
from worker.settings import Settings
from worker.stream.admin import LocalAdmin, TopicAdmin, output_topics
from worker.stream.base import Log
from worker.stream.local import LocalLog
from worker.stream.reader import LocalReader, TopicReader
from worker.stream.writer import LocalWriter, TopicWriter


def open_log(settings: Settings, *, clock: Clock | None = None) -> Log:
    """The group consumer with atomic commits; not started yet."""
    if settings.log.backend == "local":
        return LocalLog(
            settings.log.directory,
            settings.kafka.group_id,
            outputs=output_topics(settings),
            fsync=settings.log.fsync,
        )
    from worker.stream.kafka import KafkaLog

    return KafkaLog(settings, clock=clock)


def open_reader(settings: Settings) -> TopicReader:
    """``async with open_reader(settings) as reader: async for record in reader.read(topic)``."""
    if settings.log.backend == "local":
        return LocalReader(settings.log.directory)
    from worker.stream.kafka_reader import KafkaReader

    return KafkaReader(settings)


def open_writer(settings: Settings) -> TopicWriter:
    """``async with open_writer(settings) as writer: await writer.write(outputs)``."""
    if settings.log.backend == "local":
        return LocalWriter(settings.log.directory, fsync=settings.log.fsync)
    from worker.stream.kafka_writer import KafkaWriter

    return KafkaWriter(settings)


def open_admin(settings: Settings) -> TopicAdmin:
    """``async with open_admin(settings) as admin: await admin.topics()``."""
    if settings.log.backend == "local":
        return LocalAdmin(settings.log.directory)
    from worker.stream.kafka_admin import KafkaAdmin

    return KafkaAdmin(settings)
