{{- define "moderation-worker.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "moderation-worker.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: MODERATION_KAFKA__CLIENT_ID
  value: $(POD_NAME)
- name: MODERATION_WEB__PORT
  value: {{ include "moderation-worker.port" . | quote }}
- name: HF_HUB_OFFLINE
  value: "1"
- name: HF_HOME
  value: {{ ternary "/models/hub" "/cache/huggingface" (eq (include "moderation-worker.modelSource" .) "hub") }}
- name: XDG_CACHE_HOME
  value: /cache
- name: TORCHINDUCTOR_CACHE_DIR
  value: /cache/inductor
- name: TRITON_CACHE_DIR
  value: /cache/triton
- name: OTEL_SERVICE_NAME
  value: {{ include "moderation-worker.fullname" . }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ printf "service.instance.id=$(POD_NAME),k8s.namespace.name=%s%s" .Release.Namespace (ternary "" (printf ",%s" .Values.otel.resourceAttributes) (empty .Values.otel.resourceAttributes)) | quote }}
{{- if .Values.otel.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.otel.endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .Values.otel.protocol | quote }}
{{- else }}
- name: OTEL_TRACES_EXPORTER
  value: none
- name: OTEL_METRICS_EXPORTER
  value: none
{{- end }}
{{- with .Values.kafkaAuth }}
{{- if and .existingSecret (hasPrefix "SASL" (dig "kafka" "security" "protocol" "" $.Values.settings)) }}
- name: MODERATION_KAFKA__SECURITY__USERNAME
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .usernameKey }}
{{- end }}
{{- end }}
{{- include "moderation-worker.storeEnv" . }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "moderation-worker.storeEnv" -}}
{{- with .Values.storeAuth }}
{{- if .existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .accessKeyIdKey }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .secretAccessKeyKey }}
{{- end }}
{{- end }}
{{- end }}

{{- define "moderation-worker.podSecurityContext" -}}
runAsNonRoot: true
{{- if .Values.runAsUser }}
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
fsGroup: {{ .Values.runAsUser }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "moderation-worker.baseVolumes" -}}
- name: config
  configMap:
    name: {{ include "moderation-worker.fullname" . }}
- name: policies
{{- if .Values.policies.extraConfigMaps }}
  projected:
    sources:
      {{- range prepend .Values.policies.extraConfigMaps (include "moderation-worker.policiesName" .) }}
      - configMap:
          name: {{ . }}
      {{- end }}
{{- else }}
  configMap:
    name: {{ include "moderation-worker.policiesName" . }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.tmpSize }}
- name: cache
  emptyDir: {}
{{- include "moderation-worker.kafkaVolume" . }}
{{- end }}

{{- define "moderation-worker.volumes" -}}
{{ include "moderation-worker.baseVolumes" . }}
{{- with .Values.shmSize }}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ . }}
{{- end }}
{{- $source := include "moderation-worker.modelSource" . }}
{{- with .Values.model }}
{{- if eq $source "pvc" }}
- name: model
  persistentVolumeClaim:
    claimName: {{ .pvc.claimName }}
    readOnly: true
{{- else if eq $source "image" }}
- name: model
  image:
    reference: {{ .image.reference }}
    pullPolicy: {{ .image.pullPolicy }}
{{- else if has $source (list "hub" "s3") }}
{{- $fetched := get . $source }}
- name: model
{{- if $fetched.cacheClaim }}
  persistentVolumeClaim:
    claimName: {{ $fetched.cacheClaim }}
{{- else }}
  emptyDir:
    sizeLimit: {{ $fetched.cacheSize }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "moderation-worker.kafkaVolume" -}}
{{- $sasl := hasPrefix "SASL" (dig "kafka" "security" "protocol" "" .Values.settings) }}
{{- with .Values.kafkaAuth }}
{{- if and .existingSecret (or $sasl .caKey .certificateKey) }}
- name: kafka
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      {{- if $sasl }}
      - key: {{ .passwordKey }}
        path: password
      {{- end }}
      {{- if .caKey }}
      - key: {{ .caKey }}
        path: ca.pem
      {{- end }}
      {{- if .certificateKey }}
      - key: {{ .certificateKey }}
        path: tls.crt
      - key: {{ .privateKeyKey }}
        path: tls.key
      {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "moderation-worker.baseMounts" -}}
- name: config
  mountPath: /etc/moderation-worker
  readOnly: true
- name: policies
  mountPath: /policies
  readOnly: true
- name: tmp
  mountPath: /tmp
- name: cache
  mountPath: /cache
{{- if include "moderation-worker.kafkaVolume" . | trim }}
- name: kafka
  mountPath: /secrets/kafka
  readOnly: true
{{- end }}
{{- end }}

{{- define "moderation-worker.volumeMounts" -}}
{{ include "moderation-worker.baseMounts" . }}
{{- if .Values.shmSize }}
- name: shm
  mountPath: /dev/shm
{{- end }}
{{- if not (has (include "moderation-worker.modelSource" .) (list "tiny" "none")) }}
- name: model
  mountPath: /models
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
