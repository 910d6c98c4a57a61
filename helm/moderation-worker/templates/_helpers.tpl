{{- define "moderation-worker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "moderation-worker.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" }}
{{- end }}
{{- end }}
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

{{/* Policy files by name: the chart's policies/ folder under policies.inline. */}}
{{- define "moderation-worker.policyFiles" -}}
{{- $files := dict }}
{{- range $path, $_ := .Files.Glob "policies/*.yaml" }}
{{- $_ := set $files (base $path) ($.Files.Get $path) }}
{{- end }}
{{- toYaml (mergeOverwrite $files (deepCopy (default (dict) .Values.policies.inline))) }}
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
