{{/*
The rights of the controller: each is used, and what is not used is not granted.

Three sets of rules: of the cluster (what has no namespace), of the namespaces that are served, and of Secrets. Where the
second and third are granted depends on controller.scope and controller.secretNamespaces.
*/}}

{{- define "tidegate.rules.served" -}}
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [tidegate.dev]
  resources: [backendpolicies]
  verbs: [get, list, watch]
- apiGroups: [tidegate.dev]
  resources: [backendpolicies/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "tidegate.rules.secrets" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch]
{{- end -}}

{{/* A role and its binding: (dict "root" $ "kind" "Role" "name" … "namespace" … "rules" …). */}}
{{- define "tidegate.role" -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "tidegate.labels" .root | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "tidegate.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ include "tidegate.serviceAccountName" .root }}
    namespace: {{ .root.Release.Namespace }}
{{ end -}}

{{- define "tidegate.rules.cluster" -}}
- apiGroups: [networking.k8s.io]
  resources: [ingressclasses]
  verbs: [get, list, watch]
{{- if not (include "tidegate.publishService" .) }}
- apiGroups: [""]
  resources: [nodes]
  verbs: [get]
{{- end }}
{{- if not .Values.controller.scope.enabled }}
{{ include "tidegate.rules.served" . }}
{{- if not .Values.controller.secretNamespaces }}
{{ include "tidegate.rules.secrets" . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "tidegate.rules.scope" -}}
{{ include "tidegate.rules.served" . }}
{{- if not .Values.controller.secretNamespaces }}
{{ include "tidegate.rules.secrets" . }}
{{- end }}
{{- end -}}

{{/* The ConfigMaps of tcp and udp alone, and Events on them where those are not granted already. */}}
{{- define "tidegate.rules.relays" -}}
- apiGroups: [""]
  resources: [configmaps]
  resourceNames:
    {{- range $kind := list "tcp" "udp" }}
    {{- if get $.Values $kind }}
    - {{ include "tidegate.fullname" $ }}-{{ $kind }}
    {{- end }}
    {{- end }}
  verbs: [get, list, watch]
{{- if .Values.controller.scope.enabled }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
{{- end -}}

{{/* A name cannot restrict "create", since the name is not known yet when it is authorized. */}}
{{- define "tidegate.rules.lease" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "tidegate.leaseName" . }}]
  verbs: [get, update]
{{- end -}}
