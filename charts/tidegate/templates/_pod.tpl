{{/* Flags of `tidegate controller`, as a YAML list. */}}
{{- define "tidegate.args" -}}
{{- $controller := .Values.controller -}}
{{- $host := ternary "[::]" "0.0.0.0" $controller.ipv6 -}}
- controller
- {{ printf "--http-addr=%s:%d" $host (int64 $controller.containerPort.http) | quote }}
- {{ printf "--https-addr=%s:%d" $host (int64 $controller.containerPort.https) | quote }}
- {{ printf "--admin-addr=%s:%d" $host (int64 $controller.metrics.port) | quote }}
- {{ printf "--ingress-class=%s" $controller.ingressClassResource.name | quote }}
- {{ printf "--controller-name=%s" $controller.ingressClassResource.controllerValue | quote }}
{{- with include "tidegate.publishService" . }}
- {{ printf "--publish-service=%s" . | quote }}
{{- end }}
- "--lease-namespace=$(POD_NAMESPACE)"
- {{ printf "--lease-name=%s" (include "tidegate.leaseName" .) | quote }}
{{- if $controller.scope.enabled }}
- {{ printf "--watch-namespace=%s" (include "tidegate.scopeNamespace" .) | quote }}
{{- end }}
{{- range $controller.secretNamespaces }}
- {{ printf "--secret-namespace=%s" . | quote }}
{{- end }}
{{- range $kind := list "tcp" "udp" }}
{{- if get $.Values $kind }}
- {{ printf "--%s-services-configmap=%s/%s-%s" $kind $.Release.Namespace (include "tidegate.fullname" $) $kind | quote }}
{{- end }}
{{- end }}
- {{ printf "--lameduck=%ds" (int64 $controller.lameduckSeconds) | quote }}
- {{ printf "--drain-timeout=%ds" (int64 $controller.drainSeconds) | quote }}
{{- if $controller.ticketKeysSecret }}
- "--tls-ticket-keys=/etc/tidegate/ticket-keys/keys"
{{- end }}
{{- with $controller.admin }}
{{- if .tokenSecret }}
- "--admin-token-file=/etc/tidegate/admin-token/token"
{{- if .tokenForMetrics }}
- "--admin-token-for-metrics"
{{- end }}
{{- end }}
{{- if .tlsSecret }}
- "--admin-tls-cert=/etc/tidegate/admin-tls/tls.crt"
- "--admin-tls-key=/etc/tidegate/admin-tls/tls.key"
{{- end }}
{{- end }}
{{- range $flag, $value := $controller.extraArgs }}
{{- if kindIs "bool" $value }}
{{- if $value }}
- {{ printf "--%s" $flag | quote }}
{{- end }}
{{- else }}
{{- range (kindIs "slice" $value | ternary $value (list $value)) }}
{{- /* Numbers of a values file are floating-point by now and would be written 1e+06. */}}
- {{ printf "--%s=%s" $flag (kindIs "string" . | ternary . (int64 . | toString)) | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Secrets that are mounted below /etc/tidegate, as YAML: a folder and the name of its Secret. */}}
{{- define "tidegate.mounted" -}}
{{- with .Values.controller.ticketKeysSecret }}
ticket-keys: {{ . | quote }}
{{- end }}
{{- with .Values.controller.admin.tokenSecret }}
admin-token: {{ . | quote }}
{{- end }}
{{- with .Values.controller.admin.tlsSecret }}
admin-tls: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* The template of the pod. Pod Security "restricted" admits it unless ports of the node are used. */}}
{{- define "tidegate.pod" -}}
{{- $controller := .Values.controller -}}
metadata:
  labels:
    {{- include "tidegate.selectorLabels" . | nindent 4 }}
    {{- with $controller.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $controller.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "tidegate.serviceAccountName" . }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $controller.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  terminationGracePeriodSeconds: {{ int64 $controller.terminationGracePeriodSeconds }}
  {{- if $controller.hostNetwork }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: controller
      image: {{ include "tidegate.image" . | quote }}
      imagePullPolicy: {{ default "IfNotPresent" $controller.image.pullPolicy }}
      args:
        {{- include "tidegate.args" . | nindent 8 }}
      env:
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: NODE_NAME
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
      ports:
        - name: http
          containerPort: {{ int64 $controller.containerPort.http }}
          protocol: TCP
          {{- if $controller.hostNetwork }}
          hostPort: {{ int64 $controller.containerPort.http }}
          {{- else if $controller.hostPort.enabled }}
          hostPort: {{ int64 $controller.hostPort.ports.http }}
          {{- end }}
        - name: https
          containerPort: {{ int64 $controller.containerPort.https }}
          protocol: TCP
          {{- if $controller.hostNetwork }}
          hostPort: {{ int64 $controller.containerPort.https }}
          {{- else if $controller.hostPort.enabled }}
          hostPort: {{ int64 $controller.hostPort.ports.https }}
          {{- end }}
        - name: admin
          containerPort: {{ int64 $controller.metrics.port }}
          protocol: TCP
          {{- if $controller.hostNetwork }}
          hostPort: {{ int64 $controller.metrics.port }}
          {{- end }}
        {{- range $kind := list "tcp" "udp" }}
        {{- range $port, $target := get $.Values $kind }}
        - name: {{ $port }}-{{ $kind }}
          containerPort: {{ int64 $port }}
          protocol: {{ upper $kind }}
          {{- if or $controller.hostNetwork $controller.hostPort.enabled }}
          hostPort: {{ int64 $port }}
          {{- end }}
        {{- end }}
        {{- end }}
      livenessProbe:
        httpGet:
          path: /healthz
          port: admin
          {{- if $controller.admin.tlsSecret }}
          scheme: HTTPS
          {{- end }}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet:
          path: /readyz
          port: admin
          {{- if $controller.admin.tlsSecret }}
          scheme: HTTPS
          {{- end }}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop:
            - ALL
      {{- with $controller.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- $mounted := include "tidegate.mounted" . | fromYaml }}
      {{- with $mounted }}
      volumeMounts:
        {{- range $folder, $secret := . }}
        - name: {{ $folder }}
          mountPath: /etc/tidegate/{{ $folder }}
          readOnly: true
        {{- end }}
  volumes:
        {{- range $folder, $secret := . }}
    - name: {{ $folder }}
      secret:
        secretName: {{ $secret | quote }}
        {{- end }}
      {{- end }}
  {{- with $controller.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $controller.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $controller.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $controller.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
