{{/* The init container that fetches the model. Its environment is its own: the image is offline, and
proxies, mirror and credentials belong to the fetch as they belong to nothing else. */}}
{{- define "moderation-worker.fetch" -}}
{{- $source := include "moderation-worker.modelSource" . }}
{{- $hub := .Values.model.hub }}
{{- $s3 := .Values.model.s3 }}
- name: fetch-model
  image: {{ include "moderation-worker.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- if eq $source "hub" }}
  command: [moderation-worker-fetch-model, hub, {{ $hub.repository | quote }}, {{ $hub.revision | quote }}]
  {{- else }}
  command: [moderation-worker-fetch-model, s3, {{ $s3.uri | quote }}, /models/checkpoint]
  {{- end }}
  env:
    - name: HF_HUB_OFFLINE
      value: "0"
    - name: HF_HOME
      value: /models/hub
    - name: HF_HUB_DISABLE_TELEMETRY
      value: "1"
    {{- if eq $source "hub" }}
    {{- with $hub.endpoint }}
    - name: HF_ENDPOINT
      value: {{ . | quote }}
    {{- end }}
    {{- with $hub.tokenSecret }}
    - name: HF_TOKEN
      valueFrom:
        secretKeyRef:
          name: {{ . }}
          key: {{ $hub.tokenKey }}
    {{- end }}
    {{- else }}
    - name: MODEL_SHA256SUMS
      value: {{ $s3.sha256sums | trim | quote }}
    {{- with default (dig "store" "endpoint_url" "" .Values.settings) $s3.endpoint }}
    - name: AWS_ENDPOINT_URL_S3
      value: {{ . | quote }}
    {{- end }}
    {{- with default (dig "store" "region" "" .Values.settings) $s3.region }}
    - name: AWS_REGION
      value: {{ . | quote }}
    {{- end }}
    {{- include "moderation-worker.storeEnv" . | trim | nindent 4 }}
    {{- end }}
    {{- $named := list }}
    {{- range .Values.model.fetch.env }}{{ $named = append $named .name }}{{ end }}
    {{- range .Values.extraEnv }}
    {{- if not (has .name (concat $named (list "HF_HUB_OFFLINE" "HF_HOME"))) }}
    - {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- end }}
    {{- with .Values.model.fetch.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "moderation-worker.securityContext" . | nindent 4 }}
  resources:
    {{- toYaml .Values.model.fetch.resources | nindent 4 }}
  volumeMounts:
    - name: model
      mountPath: /models
    - name: tmp
      mountPath: /tmp
{{- end }}
