"""The log on a real Apache Kafka keeps what every log promises, and what only Kafka can break."""

from __future__ import annotations

import pytest

from tests.stream.conformance import LogConformance
from tests.support.kafka import Cluster
from tests.support.kafka import kafka as kafka  # the fixture
from tests.support.log_backends import KafkaBackend

pytestmark = pytest.mark.kafka


class TestKafkaExactlyOnce(LogConformance):
    @pytest.fixture
    def backend(self, kafka: Cluster) -> KafkaBackend:
        return KafkaBackend(kafka)
