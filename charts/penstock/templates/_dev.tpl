{{/* What stands around a server for a first try: its volume, and who may reach it. */}}
{{- define "penstock.dev.around" -}}
{{- $with := pick . "root" "component" }}
{{- with .persistence }}
{{- if .enabled }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ $.name }}
  namespace: {{ $.root.Release.Namespace | quote }}
  labels:
    {{- include "penstock.labels" $with | nindent 4 }}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: {{ .size }}}}
  {{- with .storageClassName }}
  storageClassName: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "penstock.labels" $with | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "penstock.selector" $with | nindent 6 }}
  policyTypes: [Ingress]
  # Pipelines whose Secrets are here have their pods here too.
  ingress: [{from: [{podSelector: {}}], ports: [{port: {{ .port }}}]}]
{{- end }}
{{- end }}

{{- define "penstock.dev.data" -}}
{{- if .persistence.enabled -}}
{name: data, persistentVolumeClaim: {claimName: {{ .name }}}}
{{- else -}}
{name: data, emptyDir: {}}
{{- end }}
{{- end }}

{{/*
A password that every rendering has alike: `helm template`, and so Argo CD, cannot read back what it made before. One that an older
version of the chart made at random is kept where it can be read.
*/}}
{{- define "penstock.dev.password" -}}
{{- $kept := (lookup "v1" "Secret" .root.Release.Namespace .name).data | default dict }}
{{- if hasKey $kept "password" }}
{{- get $kept "password" | b64dec }}
{{- else }}
{{- list .root.Values.dev.passwordSeed .root.Release.Namespace .root.Release.Name .name | join "\n" | sha256sum | trunc 32 }}
{{- end }}
{{- end }}
