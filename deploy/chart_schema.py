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
LABELS = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}
ANNOTATIONS = {"type": "object", "additionalProperties": {"type": "string"}}
ENVIRONMENT = {"type": "array", "items": {"type": "object", "required": ["name"]}}
AMOUNT = {
    "oneOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": "^[1-9][0-9]?%$|^100%$"},
    ]
}
"""A number of pods, or a share of them."""
COUNT = {"type": "integer", "minimum": 1}
UNSET = {"const": ""}
"""Derived by the chart."""
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
        "additionalProperties": False,
        "patternProperties": {"^[A-Za-z0-9._-]+\\.(yaml|txt)$": {"type": "string", "minLength": 1}},
    },
    "policies.binary": {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {
            "^[A-Za-z0-9._-]+$": {"type": "string", "pattern": "^[A-Za-z0-9+/=\\s]+$"}
        },
    },
    "policies.extraConfigMaps": {"type": "array", "items": NAME},
    "policies.existingConfigMap": NAME,
    "kafkaAuth.existingSecret": NAME,
    "storeAuth.existingSecret": NAME,
    "model.source": {"enum": ["pvc", "image", "hub", "s3", "none", "tiny"]},
    "model.path": {"type": "string", "pattern": "^$|^[^/].*$"},
    "model.pvc.claimName": NAME,
    "model.image.pullPolicy": PULL,
    "model.hub.revision": {"type": "string", "pattern": "^[0-9a-f]{40}$"},
    "model.hub.tokenSecret": NAME,
    "model.hub.cacheClaim": NAME,
    "model.hub.cacheSize": QUANTITY,
    "model.hub.endpoint": {"type": "string", "pattern": "^$|^https?://"},
    "model.s3.uri": {"type": "string", "pattern": "^$|^s3://[^/]+/?"},
    "model.s3.sha256sums": {
        "type": "string",
        "pattern": "^$|^([0-9a-f]{64} [ *][^/\\n][^\\n]*\\n?)+$",
    },
    "model.s3.endpoint": {"type": "string", "pattern": "^$|^https?://"},
    "model.s3.cacheClaim": NAME,
    "model.s3.cacheSize": QUANTITY,
    "model.fetch.env": ENVIRONMENT,
    "model.fetch.resources": {"type": "object"},
    "gpu.count": COUNT,
    "gpu.nodeSelector": LABELS,
    "gpu.tolerations": OBJECTS,
    "rollout.maxUnavailable": AMOUNT,
    "rollout.maxSurge": {"oneOf": [{"const": 0}, *AMOUNT["oneOf"]]},
    "autoscaling.maxReplicas": COUNT,
    "autoscaling.workerEventsPerSecond": {"type": "number", "exclusiveMinimum": 0},
    "autoscaling.tolerableDelaySeconds": {"type": "number", "exclusiveMinimum": 0},
    "autoscaling.pollingInterval": COUNT,
    "autoscaling.prometheus.address": {"type": "string", "pattern": "^$|^https?://"},
    "autoscaling.prometheus.outageSeconds": COUNT,
    "autoscaling.prometheus.utilization": RATIO,
    "autoscaling.fallback.failureThreshold": COUNT,
    "autoscaling.kafkaMetadata": {
        "type": "object",
        "additionalProperties": {"type": ["string", "boolean", "integer"]},
    },
    "autoscaling.triggers": {
        "type": "array",
        "items": {
            "required": ["type", "name"],
            "properties": {"name": {"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}},
        },
    },
    "autoscaling.scaleDown.percent": {"oneOf": [UNSET, {**COUNT, "maximum": 100}]},
    "autoscaling.scaleDown.stabilizationSeconds": {
        "oneOf": [UNSET, {"type": "integer", "minimum": 0, "maximum": 3600}]
    },
    "autoscaling.scaleDown.periodSeconds": {"oneOf": [UNSET, {**COUNT, "maximum": 1800}]},
    "autoscaling.scaleUp.pods": COUNT,
    "autoscaling.scaleUp.periodSeconds": {"type": "integer", "minimum": 1, "maximum": 1800},
    "serviceAccount.annotations": ANNOTATIONS,
    "probes.startup.periodSeconds": COUNT,
    "probes.startup.failureThreshold": COUNT,
    "probes.readiness.periodSeconds": COUNT,
    "probes.readiness.failureThreshold": COUNT,
    "probes.liveness.periodSeconds": COUNT,
    "probes.liveness.failureThreshold": COUNT,
    "probes.liveness.timeoutSeconds": COUNT,
    "otel.endpoint": {"type": "string", "pattern": "^$|^https?://"},
    "otel.protocol": {"const": "http/protobuf"},
    "extraEnv": ENVIRONMENT,
    "extraEnvFrom": OBJECTS,
    "initContainers": ENVIRONMENT,
    "extraContainers": ENVIRONMENT,
    "extraObjects": {"type": "array", "items": {"type": ["object", "string"]}},
    "extraVolumes": OBJECTS,
    "extraVolumeMounts": OBJECTS,
    "shmSize": QUANTITY,
    "tmpSize": QUANTITY,
    "podLabels": LABELS,
    "podAnnotations": ANNOTATIONS,
    "nodeSelector": LABELS,
    "tolerations": OBJECTS,
    "topologySpreadConstraints": OBJECTS,
    "podDisruptionBudget.maxUnavailable": AMOUNT,
    "networkPolicy.metricsFrom": PEERS,
    "networkPolicy.kafka.to": PEERS,
    "networkPolicy.kafka.ports": PORTS,
    "networkPolicy.store.to": PEERS,
    "networkPolicy.store.ports": PORTS,
    "networkPolicy.judge.to": PEERS,
    "networkPolicy.judge.ports": PORTS,
    "networkPolicy.extraEgress": OBJECTS,
    "networkPolicy.extraIngress": OBJECTS,
    "networkPolicy.otlp.to": PEERS,
    "networkPolicy.otlp.ports": PORTS,
    "podMonitor.intervalSeconds": COUNT,
    "podMonitor.labels": LABELS,
    "alerts.labels": LABELS,
    "alerts.minReady": {"oneOf": [UNSET, {"type": "integer", "minimum": 0}]},
    "alerts.slo.seconds": {"enum": [0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600]},
    "alerts.slo.objective": {"type": "number", "minimum": 0.5, "maximum": 0.9999},
    "alerts.stuckSeconds": COUNT,
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
