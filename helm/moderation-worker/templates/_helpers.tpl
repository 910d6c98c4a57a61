{{- define "moderation-worker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 46 characters, since objects add up to 17; a longer name keeps a hash of what is cut off. */}}
{{- define "moderation-worker.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := printf "%s-%s" .Release.Name $name }}
{{- if contains $name .Release.Name }}{{ $full = .Release.Name }}{{ end }}
{{- $full = default $full .Values.fullnameOverride }}
{{- if gt (len $full) 46 }}
{{- $full = printf "%s-%s" ($full | trunc 37 | trimSuffix "-") ($full | sha256sum | trunc 8) }}
{{- end }}
{{- $full }}
{{- end }}

{{- define "moderation-worker.selectorLabels" -}}
app.kubernetes.io/name: {{ include "moderation-worker.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "moderation-worker.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "moderation-worker.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "moderation-worker.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "moderation-worker.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "moderation-worker.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "moderation-worker.policiesName" -}}
{{- default (printf "%s-policies" (include "moderation-worker.fullname" .)) .Values.policies.existingConfigMap }}
{{- end }}

{{/* Policies and their lists by file name: the chart's policies/ folder under policies.inline. */}}
{{- define "moderation-worker.policyFiles" -}}
{{- $files := dict }}
{{- range $path, $_ := .Files.Glob "policies/*.{yaml,txt}" }}
{{- $_ := set $files (base $path) ($.Files.Get $path) }}
{{- end }}
{{- toYaml (mergeOverwrite $files (deepCopy (default (dict) .Values.policies.inline))) }}
{{- end }}

{{/* Every topic that a policy of this release binds or inputTopics lists, sorted, as a list in JSON. */}}
{{- define "moderation-worker.topics" -}}
{{- $topics := list }}
{{- range .Values.inputTopics }}{{ $topics = append $topics .name }}{{ end }}
{{- range $file, $text := include "moderation-worker.policyFiles" . | fromYaml }}
{{- if hasSuffix ".yaml" $file }}
{{- range (fromYaml $text).topics }}{{ $topics = append $topics . }}{{ end }}
{{- end }}
{{- end }}
{{- $topics | uniq | sortAlpha | toJson }}
{{- end }}

{{/* Sum of the input topics' partitions: more workers than that would idle. */}}
{{- define "moderation-worker.partitions" -}}
{{- $sum := 0 }}
{{- range .Values.inputTopics }}{{ $sum = add $sum (int .partitions) }}{{ end }}
{{- $sum }}
{{- end }}

{{- define "moderation-worker.maxReplicas" -}}
{{- min (int .Values.autoscaling.maxReplicas) (int (include "moderation-worker.partitions" .)) }}
{{- end }}

{{/* Lag aimed at for each worker: what it judges in the time that an event may wait. */}}
{{- define "moderation-worker.lagTarget" -}}
{{- mulf .Values.autoscaling.workerEventsPerSecond .Values.autoscaling.tolerableDelaySeconds | ceil | int }}
{{- end }}

{{/* Series of this release's workers in PromQL. */}}
{{- define "moderation-worker.job" -}}
{{- default (printf "%s/%s" .Release.Namespace (include "moderation-worker.fullname" .)) .Values.alerts.job }}
{{- end }}

{{/* Whether the model is here at all: a remote judge brings its own. */}}
{{- define "moderation-worker.modelSource" -}}
{{- if eq (dig "judge" "backend" "local" .Values.settings) "remote" }}none{{ else }}{{ .Values.model.source }}{{ end }}
{{- end }}

{{/* Port of a URL, with the default of its scheme. */}}
{{- define "moderation-worker.urlPort" -}}
{{- $url := urlParse . }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- default (ternary "80" "443" (eq $url.scheme "http")) $port }}
{{- end }}
