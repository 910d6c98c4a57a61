"""Schemas of the chart's values where a default alone does not say enough."""

from __future__ import annotations

from typing import Any

from worker.settings import Settings

NAME = {"type": "string", "pattern": "^$|^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
"""A Kubernetes object name, or empty."""
QUANTITY = {"type": "string", "pattern": "^$|^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
"""A Kubernetes quantity, or empty."""
PULL = {"enum": ["IfNotPresent", "Always", "Never"]}
PORTS = {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}}
PEERS = {"type": "array", "items": {"type": "object"}}
OBJECTS = {"type": "array", "items": {"type": "object"}}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 1}
RATIO = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}

OVERRIDES: dict[str, dict[str, Any]] = {
    "image.repository": {"type": "string", "minLength": 1},
    "image.digest": {"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"},
    "image.pullPolicy": PULL,
    "imagePullSecrets": {"type": "array", "items": {"type": "string"}},
    "batchDeadlineSeconds": {"type": "number", "exclusiveMinimum": 0},
    "inputTopics": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name", "partitions"],
            "properties": {
                "name": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,249}$"},
                "partitions": COUNT,
            },
        },
    },
    "policies.inline": {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z0-9._-]+\\.yaml$"},
        "additionalProperties": {"type": "string", "minLength": 1},
    },
    "policies.existingConfigMap": NAME,
    "kafkaAuth.existingSecret": NAME,
    "storeAuth.existingSecret": NAME,
    "model.source": {"enum": ["tiny", "pvc", "image", "hub"]},
    "model.path": {"type": "string", "pattern": "^$|^[^/].*$"},
    "model.pvc.claimName": NAME,
    "model.image.pullPolicy": PULL,
    "model.hub.revision": {"type": "string", "pattern": "^[0-9a-f]{40}$"},
    "model.hub.tokenSecret": NAME,
    "model.hub.cacheClaim": NAME,
    "model.hub.cacheSize": QUANTITY,
    "gpu.count": COUNT,
    "gpu.nodeSelector": LABELS,
    "gpu.tolerations": OBJECTS,
    "autoscaling.maxReplicas": COUNT,
    "autoscaling.lagThreshold": COUNT,
    "autoscaling.pollingInterval": COUNT,
    "autoscaling.fallback.failureThreshold": COUNT,
    "autoscaling.scaleDown.stabilizationSeconds": {
        "type": "integer",
        "minimum": 0,
        "maximum": 3600,
    },
    "autoscaling.scaleDown.periodSeconds": {"type": "integer", "minimum": 1, "maximum": 1800},
    "autoscaling.scaleUp.pods": COUNT,
    "autoscaling.scaleUp.periodSeconds": {"type": "integer", "minimum": 1, "maximum": 1800},
    "serviceAccount.annotations": LABELS,
    "probes.startup.periodSeconds": COUNT,
    "probes.startup.failureThreshold": COUNT,
    "probes.readiness.periodSeconds": COUNT,
    "probes.readiness.failureThreshold": COUNT,
    "probes.liveness.periodSeconds": COUNT,
    "probes.liveness.failureThreshold": COUNT,
    "probes.liveness.timeoutSeconds": COUNT,
    "otel.endpoint": {"type": "string", "pattern": "^$|^https?://"},
    "otel.protocol": {"const": "http/protobuf"},
    "extraEnv": {
        "type": "array",
        "items": {"type": "object", "required": ["name"]},
    },
    "extraVolumes": OBJECTS,
    "extraVolumeMounts": OBJECTS,
    "shmSize": QUANTITY,
    "tmpSize": QUANTITY,
    "podLabels": LABELS,
    "podAnnotations": LABELS,
    "nodeSelector": LABELS,
    "tolerations": OBJECTS,
    "topologySpreadConstraints": OBJECTS,
    "runAsUser": COUNT,
    "podDisruptionBudget.maxUnavailable": {
        "oneOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "pattern": "^[1-9][0-9]?%$|^100%$"},
        ]
    },
    "networkPolicy.metricsFrom": PEERS,
    "networkPolicy.kafka.to": PEERS,
    "networkPolicy.kafka.ports": PORTS,
    "networkPolicy.store.to": PEERS,
    "networkPolicy.store.ports": PORTS,
    "networkPolicy.otlp.to": PEERS,
    "networkPolicy.otlp.ports": PORTS,
    "podMonitor.intervalSeconds": COUNT,
    "podMonitor.labels": LABELS,
    "alerts.labels": LABELS,
    "alerts.retentionSeconds": COUNT,
    "alerts.retentionShare": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.6},
    "alerts.undecidedRatio": RATIO,
    "alerts.deadLetterRatio": RATIO,
    "alerts.quarantineRatio": RATIO,
    "dashboard.labels": LABELS,
}


def settings_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """``$defs`` and the schema of the worker's settings tree, taken from the types themselves."""
    tree = Settings.model_json_schema()
    definitions: dict[str, Any] = tree.pop("$defs")
    for definition in (*definitions.values(), tree):
        definition.pop("required", None)
        for field in definition["properties"].values():
            field.pop("default", None)
            field.pop("title", None)
    tree.pop("description", None)
    return definitions, tree
