{{/* Recording rules and alerts. deploy/prometheus/alerts.yaml is this with the default thresholds. */}}
{{- define "moderation-worker.alerts" -}}
{{- $a := .Values.alerts -}}
{{- $job := include "moderation-worker.job" . -}}
{{- $name := include "moderation-worker.fullname" . -}}
{{- $pods := printf "namespace=%q,pod=~\"%s-.*\"" .Release.Namespace $name -}}
{{- $slo := include "moderation-worker.bound" $a.slo.seconds -}}
{{- $budget := subf 1 $a.slo.objective | printf "%.6g" -}}
{{- $minReady := include "moderation-worker.minReady" . | int -}}
{{- $book := $a.runbookUrl -}}
groups:
  - name: moderation-worker-recorded
    rules:
      - record: moderation:events:rate5m
        expr: sum by (job) (rate(moderation_events_total[5m]))
      - record: moderation:events_per_worker:rate5m
        expr: sum by (job, instance) (rate(moderation_events_total[5m]))
      {{- range $window := list "5m" "30m" "1h" "6h" }}
      - record: moderation:late_verdicts:ratio{{ $window }}
        expr: |
          1 - sum by (job, messaging_destination_name) (rate(moderation_record_to_verdict_duration_seconds_bucket{le="{{ $slo }}"}[{{ $window }}]))
          / (sum by (job, messaging_destination_name) (rate(moderation_record_to_verdict_duration_seconds_count[{{ $window }}])) > 0)
      {{- end }}
      - record: moderation:record_to_verdict_seconds:p99_5m
        expr: |
          histogram_quantile(0.99, sum by (job, messaging_destination_name, le) (rate(moderation_record_to_verdict_duration_seconds_bucket[5m])))
  - name: moderation-worker-presence
    rules:
      {{- if $minReady }}
      - alert: ModerationTooFewReady
        expr: (sum(moderation_ready{job="{{ $job }}"}) or vector(0)) < {{ $minReady }}
        for: 10m
        labels: {severity: critical}
        annotations:
          summary: "{{ `{{ $value }}` }} workers are ready, {{ $minReady }} should be at least"
          action: "kubectl get pods: Pending means no node, Init means the model is not fetched, Running asks for its /readyz."
          runbook_url: {{ $book }}#moderationtoofewready
      {{- end }}
      - alert: ModerationModelNotLoaded
        expr: max by (job, instance) (moderation_check{moderation_check="model"}) == 0
        for: {{ div (mul (int .Values.probes.startup.periodSeconds) (int .Values.probes.startup.failureThreshold)) 90 }}m
        labels: {severity: critical}
        annotations:
          summary: "{{ `{{ $labels.instance }}` }} has been loading its model for too long"
          action: "Its log says what it waits for: weights that are not there, a remote judge that does not answer, a device without room."
          runbook_url: {{ $book }}#moderationmodelnotloaded
      - alert: ModerationWorkerNotReady
        expr: max by (job, instance) (moderation_ready) == 0
        for: 20m
        labels: {severity: warning}
        annotations:
          summary: "{{ `{{ $labels.instance }}` }} has not been ready for 20 minutes"
          action: Its /readyz says what is missing (model, assignment, policy).
          runbook_url: {{ $book }}#moderationworkernotready
      - alert: ModerationPodsPending
        expr: sum by (namespace) (kube_pod_status_phase{ {{- $pods }},phase="Pending"}) > 0
        for: 20m
        labels: {severity: warning}
        annotations:
          summary: "{{ `{{ $value }}` }} pods have been Pending for 20 minutes"
          action: "kubectl describe pod names the reason: no node with a free GPU, a claim that is not bound, an image or a model that is not pulled."
          runbook_url: {{ $book }}#moderationpodspending
      - alert: ModerationInitFailing
        expr: sum by (namespace, pod, container) (increase(kube_pod_init_container_status_restarts_total{ {{- $pods -}} }[30m])) > 2
        labels: {severity: critical}
        annotations:
          summary: "{{ `{{ $labels.container }} of {{ $labels.pod }}` }} failed more than twice in 30 minutes"
          action: "kubectl logs -c names the reason: no way to the hub or the store, no credentials, a checksum that differs."
          runbook_url: {{ $book }}#moderationinitfailing
      - alert: ModerationRestartLoop
        expr: sum by (namespace, pod) (increase(kube_pod_container_status_restarts_total{container="moderation-worker",namespace="{{ .Release.Namespace }}"}[30m])) > 3
        labels: {severity: critical}
        annotations:
          summary: "{{ `{{ $labels.pod }}` }} restarted more than 3 times in 30 minutes"
          action: kubectl logs --previous; the exit code says which kind of end it was (docs/operations.md).
          runbook_url: {{ $book }}#moderationrestartloop
      {{- if .Values.autoscaling.enabled }}
      - alert: ModerationWaitingAtZero
        expr: |
          sum by (namespace, scaledObject) (keda_scaler_metrics_value{namespace="{{ .Release.Namespace }}",scaledObject="{{ $name }}",scaler=~"(?i)kafka.*"}) > 0
          unless on () sum(moderation_ready{job="{{ $job }}"}) > 0
        for: 15m
        labels: {severity: critical}
        annotations:
          summary: "{{ `{{ $value }}` }} events wait and no worker is ready"
          action: "kubectl describe scaledobject: paused, or the pods it woke do not start."
          runbook_url: {{ $book }}#moderationwaitingatzero
      - alert: ModerationLagUnreadable
        expr: sum by (namespace, scaledObject) (increase(keda_scaler_detail_errors_total{namespace="{{ .Release.Namespace }}",scaledObject="{{ $name }}"}[15m])) > 10
        for: 15m
        labels: {severity: warning}
        annotations:
          summary: KEDA cannot read the lag; the workers stay as many as they are
          action: "kubectl describe scaledobject names the error: brokers, credentials, ACLs, Prometheus."
          runbook_url: {{ $book }}#moderationlagunreadable
      {{- end }}
  - name: moderation-worker-progress
    rules:
      - alert: ModerationLatencyFastBurn
        expr: |
          moderation:late_verdicts:ratio1h > {{ minf 0.99 (mulf 14.4 (subf 1 $a.slo.objective)) | printf "%.6g" }}
          and moderation:late_verdicts:ratio5m > {{ minf 0.99 (mulf 14.4 (subf 1 $a.slo.objective)) | printf "%.6g" }}
          and sum by (job, messaging_destination_name) (increase(moderation_record_to_verdict_duration_seconds_count[1h])) > 20
        for: 2m
        labels: {severity: critical}
        annotations:
          summary: "{{ `{{ $value | humanizePercentage }} of verdicts of {{ $labels.messaging_destination_name }}` }} came later than {{ $a.slo.seconds }} s in the last hour"
          action: "Compare the delay with the lag: a steady backlog wants workers, a delay without lag a faster fetch or judge."
          runbook_url: {{ $book }}#moderationlatencyfastburn
      - alert: ModerationLatencySlowBurn
        expr: |
          moderation:late_verdicts:ratio6h > {{ minf 0.99 (mulf 6 (subf 1 $a.slo.objective)) | printf "%.6g" }}
          and moderation:late_verdicts:ratio30m > {{ minf 0.99 (mulf 6 (subf 1 $a.slo.objective)) | printf "%.6g" }}
          and sum by (job, messaging_destination_name) (increase(moderation_record_to_verdict_duration_seconds_count[6h])) > 20
        for: 15m
        labels: {severity: warning}
        annotations:
          summary: "{{ `{{ $value | humanizePercentage }} of verdicts of {{ $labels.messaging_destination_name }}` }} came later than {{ $a.slo.seconds }} s in the last 6 hours"
          action: The month's budget ({{ $budget }} of all verdicts) will not last; capacity is short at peaks.
          runbook_url: {{ $book }}#moderationlatencyslowburn
      - alert: ModerationLagGrowing
        expr: |
          sum by (job, messaging_destination_name) (moderation_lag) > {{ int $a.lagFloor }}
          and deriv(sum by (job, messaging_destination_name) (moderation_lag)[15m:1m]) > 0
        for: 15m
        labels: {severity: warning}
        annotations:
          summary: "Lag of {{ `{{ $labels.messaging_destination_name }}` }} has been growing for 15 minutes"
          action: Events arrive faster than they are judged. Raise autoscaling.maxReplicas up to the topic's partitions, or add partitions.
          runbook_url: {{ $book }}#moderationlaggrowing
      - alert: ModerationUnjudgedNearRetention
        expr: max by (job) (moderation_oldest_unjudged_age_seconds) > {{ mulf $a.retentionSeconds $a.retentionShare | int }}
        for: 5m
        labels: {severity: warning}
        annotations:
          summary: The oldest unjudged event has used up {{ mulf 100 $a.retentionShare | int }} % of the topic's retention
          action: Scale out, or raise the topic's retention.ms before events are deleted unjudged.
          runbook_url: {{ $book }}#moderationunjudgednearretention
      - alert: ModerationUnjudgedAboutToBeLost
        expr: max by (job) (moderation_oldest_unjudged_age_seconds) > {{ mulf $a.retentionSeconds $a.retentionShare 1.6 | int }}
        for: 1m
        labels: {severity: critical}
        annotations:
          summary: Events will be deleted unjudged when the topic's retention runs out
          action: Raise the topic's retention.ms now; then find out why the workers fell behind.
          runbook_url: {{ $book }}#moderationunjudgedabouttobelost
      - alert: ModerationNoCommits
        expr: |
          sum by (job) (moderation_lag) > 0
          unless sum by (job) (rate(moderation_commits_total[10m])) > 0
        for: 10m
        labels: {severity: critical}
        annotations:
          summary: Events wait and nothing has been committed for 10 minutes
          action: Ask a worker's /readyz why; look for fatal errors and for dependencies that are away.
          runbook_url: {{ $book }}#moderationnocommits
      - alert: ModerationPartitionStuck
        expr: |
          max by (job, messaging_destination_name, messaging_destination_partition_id) (moderation_partition_stalled_seconds) > {{ int $a.stuckSeconds }}
          unless on (job) max by (job) (moderation_dependency_paused_seconds) > 0
        for: 1m
        labels: {severity: critical}
        annotations:
          summary: "{{ `Partition {{ $labels.messaging_destination_partition_id }} of {{ $labels.messaging_destination_name }} has had waiting events and no commit for {{ $value | humanizeDuration }}` }}"
          action: Its owner's console and log say what the event at its head waits for; ending that worker hands the partition over.
          runbook_url: {{ $book }}#moderationpartitionstuck
      - alert: ModerationBatchStalled
        expr: max by (job, instance) (moderation_judge_batch_stalled_seconds) > {{ .Values.batchDeadlineSeconds }}
        for: 1m
        labels: {severity: critical}
        annotations:
          summary: "{{ `{{ $labels.instance }}` }} has had a batch on the device for longer than its deadline"
          action: The worker is unhealthy and ends by itself at twice the deadline; if it comes back the same, look at the device.
          runbook_url: {{ $book }}#moderationbatchstalled
      - alert: ModerationDependencyAway
        expr: max by (job, moderation_dependency) (moderation_dependency_paused_seconds) > 120
        for: 1m
        labels: {severity: warning}
        annotations:
          summary: "{{ `{{ $labels.moderation_dependency }} has been away for {{ $value | humanizeDuration }}` }}"
          action: Partitions are paused and retried; nothing is lost. Mend the dependency.
          runbook_url: {{ $book }}#moderationdependencyaway
      - alert: ModerationDependencyDown
        expr: max by (job, moderation_dependency) (moderation_dependency_paused_seconds) > 900
        for: 1m
        labels: {severity: critical}
        annotations:
          summary: "{{ `{{ $labels.moderation_dependency }} has been away for {{ $value | humanizeDuration }}` }}; nothing that needs it is judged"
          action: Nothing is lost before the topic's retention runs out. Mend the dependency; no worker needs a restart.
          runbook_url: {{ $book }}#moderationdependencydown
  - name: moderation-worker-outcomes
    rules:
      - alert: ModerationUndecidedRatio
        expr: |
          sum by (job) (rate(moderation_events_total{moderation_outcome="undecided"}[10m]))
          / sum by (job) (rate(moderation_events_total[10m])) > {{ $a.undecidedRatio }}
          and sum by (job) (increase(moderation_events_total{moderation_outcome="undecided"}[10m])) >= 5
        for: 10m
        labels: {severity: warning}
        annotations:
          summary: "{{ `{{ $value | humanizePercentage }}` }} of events are undecided"
          action: Look at the reasons on the dashboard; docs/contracts.md says what each means.
          runbook_url: {{ $book }}#moderationundecidedratio
      - alert: ModerationDeadLetterRatio
        expr: |
          sum by (job) (rate(moderation_dead_letters_total[10m]))
          / sum by (job) (rate(moderation_events_total[10m]) or rate(moderation_dead_letters_total[10m])) > {{ $a.deadLetterRatio }}
          and sum by (job) (increase(moderation_dead_letters_total[10m])) >= 5
        for: 10m
        labels: {severity: warning}
        annotations:
          summary: "{{ `{{ $value | humanizePercentage }}` }} of records cannot be read as events"
          action: moderation-worker deadletter list names code and field; a producer most likely changed its format.
          runbook_url: {{ $book }}#moderationdeadletterratio
      - alert: ModerationQuarantineRatio
        expr: |
          sum by (job) (rate(moderation_quarantined_total[30m]))
          / sum by (job) (rate(moderation_events_total[30m])) > {{ $a.quarantineRatio }}
        for: 30m
        labels: {severity: warning}
        annotations:
          summary: "{{ `{{ $value | humanizePercentage }}` }} of events are held for a person"
          action: Compare policies on the dashboard; a policy changed lately is the usual cause.
          runbook_url: {{ $book }}#moderationquarantineratio
  - name: moderation-worker-versions
    rules:
      - alert: ModerationPolicyRefused
        expr: max by (job) (moderation_policy_problems) > 0
        for: 1m
        labels: {severity: warning}
        annotations:
          summary: A policy file has problems; what was valid before stays in force
          action: /readyz and the log name file, line and fix; moderation-worker policy check shows the same.
          runbook_url: {{ $book }}#moderationpolicyrefused
      - alert: ModerationMixedModels
        expr: count by (job) (count by (job, moderation_model_id, moderation_model_revision, moderation_model_adapter, moderation_model_numerics) (moderation_model_info)) > 1
        for: 2h
        labels: {severity: warning}
        annotations:
          summary: Workers of one group have judged with {{ `{{ $value }}` }} different models for two hours
          action: A rollout stands still, or a canary was forgotten; verdicts name their model.
          runbook_url: {{ $book }}#moderationmixedmodels
      - alert: ModerationMixedPolicies
        expr: count by (job, moderation_policy_name) (count by (job, moderation_policy_name, moderation_policy_sha256) (moderation_policy_info)) > 1
        for: 30m
        labels: {severity: warning}
        annotations:
          summary: "{{ `Workers have judged by {{ $value }} versions of {{ $labels.moderation_policy_name }}` }} for half an hour"
          action: Some workers did not take the change over; their /readyz and log say why.
          runbook_url: {{ $book }}#moderationmixedpolicies
{{- end }}

{{/* A histogram's bound as Prometheus writes it: 60 is "60.0". */}}
{{- define "moderation-worker.bound" -}}
{{- $text := toString . }}
{{- if contains "." $text }}{{ $text }}{{ else }}{{ $text }}.0{{ end }}
{{- end }}

{{/* Ready workers that there should be at least: as said, else half of the fewest that there are to be. */}}
{{- define "moderation-worker.minReady" -}}
{{- $fewest := ternary (int .Values.autoscaling.minReplicas) (int .Values.replicas) .Values.autoscaling.enabled }}
{{- if ne (toString .Values.alerts.minReady) "" }}{{ int .Values.alerts.minReady }}{{ else }}{{ div (add $fewest 1) 2 }}{{ end }}
{{- end }}
