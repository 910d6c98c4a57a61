{{/* Alert groups. deploy/prometheus/alerts.yaml is this with the default thresholds. */}}
{{- define "moderation-worker.alerts" -}}
{{- $a := .Values.alerts -}}
groups:
  - name: moderation-worker-progress
    rules:
      - alert: ModerationLagGrowing
        expr: |
          sum by (job, messaging_destination_name) (moderation_lag) > {{ int $a.lagFloor }}
          and deriv(sum by (job, messaging_destination_name) (moderation_lag)[15m:1m]) > 0
        for: 15m
        labels: {severity: warning}
        annotations:
          summary: "Lag of {{ "{{" }} $labels.messaging_destination_name {{ "}}" }} has been growing for 15 minutes"
          action: Events arrive faster than they are judged. Raise autoscaling.maxReplicas up to the topic's partitions, or add partitions.
      - alert: ModerationUnjudgedNearRetention
        expr: |
          max by (job) (moderation_oldest_unjudged_age_seconds) > {{ mulf $a.retentionSeconds $a.retentionShare | int }}
        for: 5m
        labels: {severity: warning}
        annotations:
          summary: The oldest unjudged event has used up {{ mulf 100 $a.retentionShare | int }} % of the topic's retention
          action: Scale out, or raise the topic's retention.ms before events are deleted unjudged.
      - alert: ModerationUnjudgedAboutToBeLost
        expr: |
          max by (job) (moderation_oldest_unjudged_age_seconds) > {{ mulf $a.retentionSeconds $a.retentionShare 1.6 | int }}
        for: 1m
        labels: {severity: critical}
        annotations:
          summary: Events will be deleted unjudged when the topic's retention runs out
          action: Raise the topic's retention.ms now; then find out why the workers fell behind.
      - alert: ModerationNoCommits
        expr: |
          sum by (job) (moderation_lag) > 0
          unless sum by (job) (rate(moderation_commits_total[10m])) > 0
        for: 10m
        labels: {severity: critical}
        annotations:
          summary: Events wait and nothing has been committed for 10 minutes
          action: Ask a worker's /readyz why; look for fatal errors and for dependencies that are away.
      - alert: ModerationBatchStalled
        expr: |
          max by (job, instance) (moderation_judge_batch_stalled_seconds) > {{ .Values.batchDeadlineSeconds }}
        for: 1m
        labels: {severity: critical}
        annotations:
          summary: "{{ "{{" }} $labels.instance {{ "}}" }} has had a batch on the device for longer than its deadline"
          action: The worker is unhealthy and ends by itself at twice the deadline; if it comes back the same, look at the device.
      - alert: ModerationDependencyAway
        expr: |
          max by (job, moderation_dependency) (moderation_dependency_paused_seconds) > 120
        for: 1m
        labels: {severity: warning}
        annotations:
          summary: "{{ "{{" }} $labels.moderation_dependency {{ "}}" }} has been away for {{ "{{" }} $value | humanizeDuration {{ "}}" }}"
          action: Partitions are paused and retried; nothing is lost. Mend the dependency.
  - name: moderation-worker-outcomes
    rules:
      - alert: ModerationUndecidedRatio
        expr: |
          sum by (job) (rate(moderation_events_total{moderation_outcome="undecided"}[10m]))
          / sum by (job) (rate(moderation_events_total[10m])) > {{ $a.undecidedRatio }}
        for: 10m
        labels: {severity: warning}
        annotations:
          summary: "{{ "{{" }} $value | humanizePercentage {{ "}}" }} of events are undecided"
          action: Look at the reasons on the dashboard; docs/contracts.md says what each means.
      - alert: ModerationDeadLetterRatio
        expr: |
          sum by (job) (rate(moderation_dead_letters_total[10m]))
          / (sum by (job) (rate(moderation_events_total[10m])) + sum by (job) (rate(moderation_dead_letters_total[10m]))) > {{ $a.deadLetterRatio }}
        for: 10m
        labels: {severity: warning}
        annotations:
          summary: "{{ "{{" }} $value | humanizePercentage {{ "}}" }} of records cannot be read as events"
          action: moderation-worker deadletter list names code and field; a producer most likely changed its format.
      - alert: ModerationQuarantineRatio
        expr: |
          sum by (job) (rate(moderation_quarantined_total[30m]))
          / sum by (job) (rate(moderation_events_total[30m])) > {{ $a.quarantineRatio }}
        for: 30m
        labels: {severity: warning}
        annotations:
          summary: "{{ "{{" }} $value | humanizePercentage {{ "}}" }} of events are held for a person"
          action: Compare policies on the dashboard; a policy changed lately is the usual cause.
  - name: moderation-worker-health
    rules:
      - alert: ModerationPolicyRefused
        expr: |
          max by (job, moderation_policy_name) (moderation_policy_problems) > 0
        for: 1m
        labels: {severity: warning}
        annotations:
          summary: A policy file has problems; what was valid before stays in force
          action: /readyz and the log name file, line and fix; moderation-worker policy check shows the same.
      - alert: ModerationWorkerNotReady
        expr: |
          max by (job, instance) (moderation_ready) == 0
        for: 20m
        labels: {severity: warning}
        annotations:
          summary: "{{ "{{" }} $labels.instance {{ "}}" }} has not been ready for 20 minutes"
          action: Its /readyz says what is missing (model, assignment, policy).
      - alert: ModerationRestartLoop
        expr: |
          sum by (namespace, pod) (increase(kube_pod_container_status_restarts_total{container="moderation-worker"}[30m])) > 3
        labels: {severity: critical}
        annotations:
          summary: "{{ "{{" }} $labels.pod {{ "}}" }} restarted more than 3 times in 30 minutes"
          action: kubectl logs --previous; the exit code says which kind of end it was (docs/operations.md).
{{- end }}
