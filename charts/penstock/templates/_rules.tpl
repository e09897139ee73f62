{{/*
What the operator may do where pipelines are: the verbs that it uses and no others. What it owns it applies (patch, which makes
it where it is missing: create), watches and deletes when its part is switched off.
*/}}
{{- define "penstock.rules" -}}
- apiGroups: [penstock.dev]
  resources: [firehosepipelines]
  verbs: [get, list, watch, patch]
# A backfill is deleted when its time after the end is over.
- apiGroups: [penstock.dev]
  resources: [firehosebackfills]
  verbs: [list, watch, patch, delete]
- apiGroups: [penstock.dev]
  resources: [firehosepipelines/status, firehosebackfills/status]
  verbs: [patch]
# For owner references that block deletion, where the cluster enforces that permission.
- apiGroups: [penstock.dev]
  resources: [firehosepipelines/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
# The settings are there as long as their pipeline, and go with it.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses, networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# Why a pod does not run, asked only while one is not ready, and whether a migration's own container has ended beside a sidecar.
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
# What happens to a pipeline, and why its Job gets no pods.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [list, create, patch]
{{- with .Values.rbac }}
{{- if .monitoring }}
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors, prometheusrules]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- if .keda }}
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- if .gateway }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- end }}
{{- end }}

{{/* Addresses and tokens are read by reference and never copied; a change of one rolls the pods. */}}
{{- define "penstock.secretRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch]
{{- end }}
