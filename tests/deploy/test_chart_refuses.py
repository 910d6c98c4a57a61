"""Values that cannot work are refused before anything is changed, in words that help."""

from __future__ import annotations

import pytest

from tests.support.chart import Refused, render_text

MISTAKES = {
    "a misspelt value": ("default", ["replica=3"], "'replica' not allowed"),
    "a misspelt setting": ("default", ["settings.stream.drains=3"], "'drains' not allowed"),
    "a setting out of range": ("default", ["settings.stream.max_events=0"], "max_events"),
    "an unknown model source": (
        "default",
        ["model.source=ftp"],
        "'pvc', 'image', 'hub', 's3', 'none', 'tiny'",
    ),
    "S3 without checksums": ("default", ["model.source=s3"], "model.s3.sha256sums"),
    "a demonstration that judges a Kafka log": (
        "default",
        ["model.allowDemonstration=false"],
        "profiles/trial-cpu.yaml",
    ),
    "a scripted judge that judges a Kafka log": (
        "everything-off",
        ["settings.judge.backend=scripted"],
        "a demonstration that protects nobody",
    ),
    "a remote judge without an address": (
        "default",
        ["settings.judge.backend=remote"],
        "set settings.judge.remote.base_url",
    ),
    "no model and no remote judge": (
        "default",
        ["model.source=none"],
        "set settings.judge.backend to remote",
    ),
    "a lag that one busy worker has": (
        "s3-irsa",
        ["autoscaling.workerEventsPerSecond=2"],
        "Tolerate 512 s, or lower settings.stream.max_events",
    ),
    "lag that rests under order by key": (
        "s3-irsa",
        ["autoscaling.kafkaMetadata.excludePersistentLag=true"],
        "leave it out",
    ),
    "one topic twice": (
        "s3-irsa",
        ["inputTopics[1].name=ide.conversations", "inputTopics[1].partitions=2"],
        "lists a topic twice",
    ),
    "a label that Kubernetes refuses": (
        "default",
        ["podLabels.team=" + "x" * 64],
        "podLabels",
    ),
    "a file that is no policy and no list": (
        "default",
        [r"policies.inline.notes\.md=hello"],
        "policies/inline",
    ),
    "an objective between two bounds": ("default", ["alerts.slo.seconds=42"], "alerts/slo/seconds"),
    "no brokers": (
        "default",
        ["settings.kafka.bootstrap_servers="],
        "settings.kafka.bootstrap_servers is required",
    ),
    "no policy": ("default", ["policies.inline=null"], "no policy: set policies.inline"),
    "two sources of policies": (
        "default",
        ["policies.existingConfigMap=there"],
        "use one",
    ),
    "a policy that is not YAML": (
        "default",
        [r"policies.inline.community\.yaml=a: [b"],
        "community.yaml is not YAML",
    ),
    "a topic nobody would scale on": (
        "default",
        ["inputTopics[0].name=other", "inputTopics[0].partitions=1"],
        "community.yaml binds topic community.conversations, which inputTopics does not list",
    ),
    "scaling on nothing": ("default", ["autoscaling.enabled=true"], "list inputTopics"),
    "more workers at least than at most": (
        "gpu-keda-sasl",
        ["autoscaling.minReplicas=50"],
        "minReplicas must not exceed",
    ),
    "SASL without credentials": (
        "default",
        ["settings.kafka.security.protocol=SASL_SSL"],
        "set kafkaAuth.existingSecret",
    ),
    "a password among the values": (
        "gpu-keda-sasl",
        ["settings.kafka.security.password=hunter2"],
        "use kafkaAuth.existingSecret",
    ),
    "a certificate without its key": (
        "gpu-keda-sasl",
        ["kafkaAuth.privateKeyKey="],
        "set both or neither",
    ),
    "a claim without a name": ("default", ["model.source=pvc"], "set model.pvc.claimName"),
    "an image without a reference": ("default", ["model.source=image"], "model.image.reference"),
    "a branch instead of a commit": ("s3-irsa", ["model.hub.revision=main"], "revision"),
    "a drain shorter than a batch": (
        "default",
        ["settings.stream.drain_s=30"],
        "set batchDeadlineSeconds",
    ),
    "a drain longer than a rebalance": (
        "default",
        ["settings.stream.drain_s=120"],
        "must be below settings.kafka.rebalance_timeout_s",
    ),
    "the log of one machine": (
        "default",
        ["settings.log.backend=local"],
        "leave it at kafka in a cluster",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_a_message_that_names_the_value(mistake: str) -> None:
    values, sets, message = MISTAKES[mistake]
    with pytest.raises(Refused) as refused:
        render_text(values, tuple(sets))
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)
