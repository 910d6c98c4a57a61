{{/* The worker's settings: what the chart derives, with the user's tree over it. YAML. */}}
{{- define "moderation-worker.settings" -}}
{{- $deadline := .Values.batchDeadlineSeconds }}
{{- $security := dict }}
{{- $auth := .Values.kafkaAuth }}
{{- $given := dig "kafka" "security" (dict) .Values.settings }}
{{- if $auth.existingSecret }}
{{- $base := "/secrets/kafka" }}
{{- if hasPrefix "SASL" (dig "protocol" "PLAINTEXT" $given) }}
{{- $_ := set $security "password_file" (printf "%s/password" $base) }}
{{- end }}
{{- if $auth.caKey }}{{ $_ := set $security "ca_file" (printf "%s/ca.pem" $base) }}{{ end }}
{{- if $auth.certificateKey }}
{{- $_ := set $security "certificate_file" (printf "%s/tls.crt" $base) }}
{{- $_ := set $security "key_file" (printf "%s/tls.key" $base) }}
{{- end }}
{{- end }}
{{- $source := include "moderation-worker.modelSource" . }}
{{- $judge := dict "batch_deadline_s" $deadline }}
{{- if ne $source "none" }}{{ $_ := set $judge "model" (include "moderation-worker.modelName" .) }}{{ end }}
{{- if eq $source "hub" }}{{ $_ := set $judge "revision" .Values.model.hub.revision }}{{ end }}
{{- if .Values.model.allowDemonstration }}{{ $_ := set $judge "allow_demonstration" true }}{{ end }}
{{- $kafka := dict "rebalance_timeout_s" (mulf 2 $deadline) }}
{{- if $security }}{{ $_ := set $kafka "security" $security }}{{ end }}
{{- $partitions := dict }}
{{- range .Values.inputTopics }}{{ $_ := set $partitions .name (int .partitions) }}{{ end }}
{{- $derived := dict
  "kafka" $kafka
  "stream" (dict "drain_s" $deadline)
  "judge" $judge
  "policies" (dict "directory" "/policies")
  "web" (dict "host" "0.0.0.0" "port" 6066)
}}
{{- if $partitions }}{{ $_ := set $derived "topics" (dict "input_partitions" $partitions) }}{{ end }}
{{- toYaml (mergeOverwrite $derived (deepCopy .Values.settings)) }}
{{- end }}

{{- define "moderation-worker.port" -}}
{{- dig "web" "port" 6066 (include "moderation-worker.settings" . | fromYaml) | int }}
{{- end }}

{{/* Longest orderly stop: drain, then the last transaction, then the margin. Seconds. */}}
{{- define "moderation-worker.gracePeriod" -}}
{{- $settings := include "moderation-worker.settings" . | fromYaml }}
{{- $drain := $settings.stream.drain_s }}
{{- $transaction := dig "kafka" "transaction_timeout_s" 30 $settings }}
{{- addf $drain $transaction .Values.drainMarginSeconds | ceil | int }}
{{- end }}

{{- define "moderation-worker.modelName" -}}
{{- if eq .Values.model.source "tiny" -}}tiny
{{- else if eq .Values.model.source "hub" -}}{{ .Values.model.hub.repository }}
{{- else if eq .Values.model.source "s3" -}}/models/checkpoint
{{- else -}}{{ printf "/models/%s" .Values.model.path | trimSuffix "/" }}
{{- end }}
{{- end }}

{{/* Combinations that cannot work: each message names the values to change. */}}
{{- define "moderation-worker.validate" -}}
{{- $settings := include "moderation-worker.settings" . | fromYaml }}
{{- $kafka := $settings.kafka }}
{{- $protocol := dig "security" "protocol" "PLAINTEXT" $kafka }}
{{- $log := dig "log" "backend" "kafka" $settings }}
{{- if ne $log "kafka" }}
{{- fail "settings.log.backend: the local log is for one machine; leave it at kafka in a cluster" }}
{{- end }}
{{- if not $kafka.bootstrap_servers }}
{{- fail "settings.kafka.bootstrap_servers is required, e.g. --set settings.kafka.bootstrap_servers=kafka:9092" }}
{{- end }}
{{- if ge $settings.stream.drain_s $kafka.rebalance_timeout_s }}
{{- fail "settings.stream.drain_s must be below settings.kafka.rebalance_timeout_s; leave both out and set batchDeadlineSeconds" }}
{{- end }}
{{- if lt $settings.stream.drain_s $settings.judge.batch_deadline_s }}
{{- fail "settings.stream.drain_s must be at least settings.judge.batch_deadline_s, or a stop cuts a batch off; leave both out and set batchDeadlineSeconds" }}
{{- end }}
{{- if and (hasPrefix "SASL" $protocol) (not .Values.kafkaAuth.existingSecret) }}
{{- fail (printf "settings.kafka.security.protocol is %s: set kafkaAuth.existingSecret to the secret with the user and password" $protocol) }}
{{- end }}
{{- if hasKey (default (dict) $kafka.security) "password" }}
{{- fail "settings.kafka.security.password would stand in a ConfigMap: use kafkaAuth.existingSecret" }}
{{- end }}
{{- if ne (empty .Values.kafkaAuth.certificateKey) (empty .Values.kafkaAuth.privateKeyKey) }}
{{- fail "kafkaAuth.certificateKey and kafkaAuth.privateKeyKey go together: set both or neither" }}
{{- end }}
{{- if and (eq .Values.model.source "pvc") (not .Values.model.pvc.claimName) }}
{{- fail "model.source is pvc: set model.pvc.claimName to the claim that holds the checkpoint" }}
{{- end }}
{{- if and (eq .Values.model.source "image") (not .Values.model.image.reference) }}
{{- fail "model.source is image: set model.image.reference to the image that holds the checkpoint" }}
{{- end }}
{{- if and (eq .Values.model.source "s3") (not (and .Values.model.s3.uri .Values.model.s3.sha256sums)) }}
{{- fail "model.source is s3: set model.s3.uri to the checkpoint (s3://bucket/prefix) and model.s3.sha256sums to what sha256sum prints for its files (--set-file model.s3.sha256sums=SHA256SUMS)" }}
{{- end }}
{{- $backend := dig "judge" "backend" "local" $settings }}
{{- if and (eq .Values.model.source "none") (eq $backend "local") }}
{{- fail "model.source is none: set settings.judge.backend to remote with settings.judge.remote.base_url, or model.source to where the weights are" }}
{{- end }}
{{- if and (eq $backend "remote") (not (dig "judge" "remote" "base_url" "" $settings)) }}
{{- fail "settings.judge.backend is remote: set settings.judge.remote.base_url" }}
{{- end }}
{{- $demonstration := or (eq $backend "scripted") (and (eq $backend "local") (eq .Values.model.source "tiny")) }}
{{- if and $demonstration (not (dig "judge" "allow_demonstration" false $settings)) }}
{{- fail "model.source is tiny (or the judge scripted), a demonstration that protects nobody: set model.source to hub, pvc, image or s3; to try the chart out, add --values helm/moderation-worker/profiles/trial-cpu.yaml" }}
{{- end }}
{{- $policies := include "moderation-worker.policyFiles" . | fromYaml }}
{{- if and (not .Values.policies.existingConfigMap) (not $policies) }}
{{- fail "no policy: set policies.inline (file names and their texts, best in a values file of their own), or policies.existingConfigMap" }}
{{- end }}
{{- $bytes := 0 }}
{{- range merge (dict) $policies .Values.policies.binary }}{{ $bytes = add $bytes (len .) }}{{ end }}
{{- if gt (int $bytes) 1000000 }}
{{- fail (printf "policies: %d bytes do not fit a ConfigMap (1 MiB): put lists and pictures into ConfigMaps of their own and name them in policies.extraConfigMaps" $bytes) }}
{{- end }}
{{- range $file, $_ := .Values.policies.binary }}
{{- if hasKey $policies $file }}{{ fail (printf "policies: %s is in policies.inline and in policies.binary: keep one" $file) }}{{ end }}
{{- end }}
{{- if and .Values.policies.existingConfigMap (or $policies .Values.policies.binary) }}
{{- fail "policies.existingConfigMap stands instead of policies.inline and of the chart's policies/ folder: use one" }}
{{- end }}
{{- include "moderation-worker.validateTopics" (dict "policies" $policies "Values" .Values "target" (include "moderation-worker.lagTarget" .)) }}
{{- end }}

{{- define "moderation-worker.validateTopics" -}}
{{- $listed := list }}
{{- range .Values.inputTopics }}{{ $listed = append $listed .name }}{{ end }}
{{- if and .Values.autoscaling.enabled (not $listed) }}
{{- fail "autoscaling.enabled: list inputTopics, each with name and partitions, for KEDA to watch" }}
{{- end }}
{{- range $file, $text := .policies }}
{{- if hasSuffix ".yaml" $file }}
{{- $policy := fromYaml $text }}
{{- if hasKey $policy "Error" }}{{ fail (printf "policies: %s is not YAML: %s" $file $policy.Error) }}{{ end }}
{{- range $policy.topics }}
{{- if and $listed (not (has . $listed)) }}
{{- fail (printf "policies: %s binds topic %s, which inputTopics does not list" $file .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if ne (len $listed) (len (uniq $listed)) }}
{{- fail "inputTopics lists a topic twice" }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- fail "autoscaling.minReplicas must not exceed autoscaling.maxReplicas" }}
{{- end }}
{{- $inflight := int (dig "stream" "max_events" 1024 $.Values.settings) }}
{{- if and .enabled (lt (int $.target) $inflight) }}
{{- fail (printf "autoscaling: workerEventsPerSecond x tolerableDelaySeconds is %d, below settings.stream.max_events (%d): a single busy worker would look like a backlog. Tolerate %d s, or lower settings.stream.max_events" (int $.target) $inflight (divf $inflight .workerEventsPerSecond | ceil | int)) }}
{{- end }}
{{- if and (get .kafkaMetadata "excludePersistentLag") (ne (dig "stream" "order" "" $.Values.settings) "partition") }}
{{- fail "autoscaling.kafkaMetadata.excludePersistentLag: with order by key a committed offset may rest while its partition is judged, and its lag would be ignored; leave it out, or set settings.stream.order to partition" }}
{{- end }}
{{- end }}
{{- end }}
