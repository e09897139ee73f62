{{/* Names: what is made is called <fullname>-operator, <fullname>-dev-redis and so on. */}}
{{- define "penstock.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "penstock.fullname" -}}
{{- $name := include "penstock.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $full | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "penstock.operator" -}}
{{ include "penstock.fullname" . }}-operator
{{- end }}

{{- define "penstock.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "penstock.operator" .) }}
{{- else }}{{ required "serviceAccount.name must name an existing ServiceAccount where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "penstock.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* A file of alerts or a dashboard, with its runbooks where runbooks.url says. */}}
{{- define "penstock.withRunbooks" -}}
{{ .text | replace "https://github.com/penstock/penstock/blob/main/docs/runbooks" .root.Values.runbooks.url }}
{{- end }}

{{/* Labels of one component: `include "penstock.labels" (dict "root" $ "component" "operator")`. */}}
{{- define "penstock.labels" -}}
{{- /* A label of ours stands only once, as it is: others select by it. */}}
{{- $own := list "helm.sh/chart" "app.kubernetes.io/version" "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" }}
{{- $selecting := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" }}
{{- $common := .root.Values.commonLabels | default dict }}
{{- range concat $own $selecting }}
{{- $common = omit $common . }}
{{- end }}
{{- with $common }}
{{ toYaml . }}
{{- end }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: penstock
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* What never changes between versions. */}}
{{- define "penstock.selector" -}}
app.kubernetes.io/name: {{ include "penstock.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The namespaces whose pipelines are reconciled, comma-separated; empty: all. */}}
{{- define "penstock.watched" -}}
{{- $own := ternary (list .Release.Namespace) list (eq .Values.rbac.scope "namespace") }}
{{- .Values.watchNamespaces | default $own | uniq | join "," }}
{{- end }}

{{- define "penstock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
