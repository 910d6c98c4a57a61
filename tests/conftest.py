"""Fixtures that several suites share; what they start is started once for the whole run."""

from __future__ import annotations

from tests.support.kafka import kafka as kafka
from tests.support.kafka import kafka_of_three as kafka_of_three
