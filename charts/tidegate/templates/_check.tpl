{{/* What values.schema.json cannot say: values that fit alone but not together. Renders nothing. */}}
{{- define "tidegate.check" -}}
{{- $controller := .Values.controller -}}

{{- if ge (add $controller.lameduckSeconds $controller.drainSeconds) (int64 $controller.terminationGracePeriodSeconds) -}}
{{- fail (printf "controller.terminationGracePeriodSeconds (%d) must be more than controller.lameduckSeconds + controller.drainSeconds (%d), or pods are killed with requests in progress" (int64 $controller.terminationGracePeriodSeconds) (add $controller.lameduckSeconds $controller.drainSeconds)) -}}
{{- end -}}

{{- if and $controller.autoscaling.enabled (eq $controller.kind "DaemonSet") -}}
{{- fail "controller.autoscaling.enabled: a DaemonSet cannot be scaled; use controller.kind: Deployment" -}}
{{- end -}}
{{- with $controller.autoscaling -}}
{{- if and .enabled (gt (int64 .minReplicas) (int64 .maxReplicas)) -}}
{{- fail "controller.autoscaling.minReplicas is more than controller.autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and .enabled (not .targetCPUUtilizationPercentage) (not .targetMemoryUtilizationPercentage) -}}
{{- fail "controller.autoscaling.enabled needs targetCPUUtilizationPercentage or targetMemoryUtilizationPercentage" -}}
{{- end -}}
{{- end -}}

{{- if and $controller.metrics.serviceMonitor.enabled (not $controller.metrics.enabled) -}}
{{- fail "controller.metrics.serviceMonitor.enabled needs controller.metrics.enabled: there is no Service to scrape" -}}
{{- end -}}

{{- $ports := list (int64 $controller.containerPort.http) (int64 $controller.containerPort.https) (int64 $controller.metrics.port) -}}
{{- if ne (len ($ports | uniq)) 3 -}}
{{- fail "controller.containerPort.http, controller.containerPort.https and controller.metrics.port must differ" -}}
{{- end -}}

{{- range $port, $target := .Values.tcp -}}
{{- if has (int64 $port) $ports -}}
{{- fail (printf "tcp: port %s is one of controller.containerPort and controller.metrics.port" $port) -}}
{{- end -}}
{{- end -}}

{{- $published := include "tidegate.publishService" . -}}
{{- if and $controller.scope.enabled $published -}}
{{- $scope := include "tidegate.scopeNamespace" . -}}
{{- if ne (splitList "/" $published | first) $scope -}}
{{- fail (printf "controller.publishService: Service %s is outside the only namespace that is read, %s (controller.scope.namespace). Set controller.publishService.pathOverride to a Service there, or controller.publishService.enabled to false" $published $scope) -}}
{{- end -}}
{{- end -}}

{{- $ours := dict
  "http-addr" "controller.containerPort.http"
  "https-addr" "controller.containerPort.https"
  "admin-addr" "controller.metrics.port"
  "ingress-class" "controller.ingressClassResource.name"
  "controller-name" "controller.ingressClassResource.controllerValue"
  "publish-service" "controller.publishService.pathOverride"
  "watch-namespace" "controller.scope.namespace"
  "secret-namespace" "controller.secretNamespaces"
  "lease-namespace" "nothing: it is the namespace of the release"
  "lease-name" "fullnameOverride"
  "tls-ticket-keys" "controller.ticketKeysSecret"
  "lameduck" "controller.lameduckSeconds"
  "drain-timeout" "controller.drainSeconds" -}}
{{- if .Values.tcp -}}{{- $_ := set $ours "tcp-services-configmap" "tcp" -}}{{- end -}}
{{- if .Values.udp -}}{{- $_ := set $ours "udp-services-configmap" "udp" -}}{{- end -}}
{{- range $flag, $value := $controller.extraArgs -}}
{{- if hasKey $ours $flag -}}
{{- fail (printf "controller.extraArgs.%s: the chart sets this flag; use %s" $flag (get $ours $flag)) -}}
{{- end -}}
{{- if and (eq $flag "publish-address") $published -}}
{{- fail "controller.extraArgs.publish-address needs controller.publishService.enabled: false" -}}
{{- end -}}
{{- end -}}
{{- end -}}
