"""Small closed schemas of the custom resources the chart makes, written from their references.

KEDA 2.17 (keda.sh/docs: ScaledObject, Apache Kafka scaler, authentication) and the Prometheus
operator (PodMonitor, PrometheusRule). Only fields the chart may use are listed.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMERAL: Schema = {"type": "string", "pattern": "^[0-9]+$"}
FLAG: Schema = {"enum": ["true", "false"]}
LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
SECONDS: Schema = {"type": "string", "pattern": "^[0-9]+(s|m|h)$"}


def closed(required: str, **properties: Schema) -> Schema:
    """An object of these properties only; ``required`` names those that must be there."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": required.split(),
    }


def listed(items: Schema) -> Schema:
    """A list with at least one element."""
    return {"type": "array", "minItems": 1, "items": items}


def resource(api: str, kind: str, spec: Schema) -> Schema:
    """A custom resource with the usual head."""
    head = closed("name", name=TEXT, labels=LABELS)
    return closed(
        "apiVersion kind metadata spec",
        apiVersion={"const": api},
        kind={"const": kind},
        metadata=head,
        spec=spec,
    )


_SCALING_POLICY = closed("type value periodSeconds", type=TEXT, value=COUNT, periodSeconds=COUNT)
_SCALING = closed(
    "policies",
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
    selectPolicy={"enum": ["Min", "Max", "Disabled"]},
    policies=listed(_SCALING_POLICY),
)
_PROMETHEUS = closed(
    "type name metadata",
    type={"const": "prometheus"},
    name=TEXT,
    metadata=closed(
        "serverAddress query threshold",
        serverAddress=TEXT,
        query=TEXT,
        threshold=NUMERAL,
        ignoreNullValues=FLAG,
    ),
)
_KAFKA = closed(
    "type name metadata",
    type={"const": "kafka"},
    name=TEXT,
    metadata=closed(
        "bootstrapServers consumerGroup topic lagThreshold",
        bootstrapServers=TEXT,
        consumerGroup=TEXT,
        topic=TEXT,
        lagThreshold=NUMERAL,
        activationLagThreshold=NUMERAL,
        offsetResetPolicy={"enum": ["earliest", "latest"]},
        allowIdleConsumers=FLAG,
        scaleToZeroOnInvalidOffset=FLAG,
        limitToPartitionsWithLag=FLAG,
        sasl={"enum": ["none", "plaintext", "scram_sha256", "scram_sha512"]},
        tls={"enum": ["enable", "disable"]},
    ),
    authenticationRef=closed("name", name=TEXT),
)
_FALLBACK = closed(
    "failureThreshold replicas",
    failureThreshold=COUNT,
    replicas=COUNT,
    behavior={
        "enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]
    },
)
_RECORDED = closed(
    "record expr", record={"type": "string", "pattern": "^moderation:[a-z_0-9:]+$"}, expr=TEXT
)
_ALERT = closed(
    "alert expr labels annotations",
    alert={"type": "string", "pattern": "^Moderation[A-Za-z]+$"},
    expr=TEXT,
    **{"for": SECONDS},
    labels=closed("severity", severity={"enum": ["warning", "critical"]}),
    annotations=closed("summary action runbook_url", summary=TEXT, action=TEXT, runbook_url=TEXT),
)

SCHEMAS: dict[str, Schema] = {
    "ScaledObject": resource(
        "keda.sh/v1alpha1",
        "ScaledObject",
        closed(
            "scaleTargetRef triggers",
            scaleTargetRef=closed("name", name=TEXT),
            pollingInterval=COUNT,
            cooldownPeriod=COUNT,
            minReplicaCount=COUNT,
            maxReplicaCount=COUNT,
            fallback=_FALLBACK,
            advanced=closed(
                "horizontalPodAutoscalerConfig scalingModifiers",
                horizontalPodAutoscalerConfig=closed(
                    "behavior", behavior=closed("", scaleDown=_SCALING, scaleUp=_SCALING)
                ),
                scalingModifiers=closed(
                    "formula target activationTarget metricType",
                    formula=TEXT,
                    target=NUMERAL,
                    activationTarget=NUMERAL,
                    metricType={"const": "AverageValue"},
                ),
            ),
            triggers=listed({"oneOf": [_KAFKA, _PROMETHEUS]}),
        ),
    ),
    "TriggerAuthentication": resource(
        "keda.sh/v1alpha1",
        "TriggerAuthentication",
        closed(
            "secretTargetRef",
            secretTargetRef=listed(
                closed(
                    "parameter name key",
                    parameter={"enum": ["username", "password", "ca", "cert", "key"]},
                    name=TEXT,
                    key=TEXT,
                )
            ),
        ),
    ),
    "PodMonitor": resource(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        closed(
            "selector podMetricsEndpoints",
            selector=closed("matchLabels", matchLabels=LABELS),
            podMetricsEndpoints=listed(
                closed("port", port=TEXT, path={"const": "/metrics"}, interval=SECONDS)
            ),
        ),
    ),
    "PrometheusRule": resource(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        closed(
            "groups",
            groups=listed(
                closed("name rules", name=TEXT, rules=listed({"oneOf": [_ALERT, _RECORDED]}))
            ),
        ),
    ),
}
