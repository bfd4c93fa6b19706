{{- define "gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's name is enough where it already says what this is. 52 characters leave room for what Kubernetes adds to a StatefulSet's name. */}}
{{- define "gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "gateway.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "gateway.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "gateway.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gateway.publicUrl" -}}
{{- if .Values.publicUrl -}}
{{- .Values.publicUrl -}}
{{- else if eq (int .Values.service.ports.https) 443 -}}
{{- printf "https://%s" .Values.domain -}}
{{- else -}}
{{- printf "https://%s:%d" .Values.domain (int .Values.service.ports.https) -}}
{{- end -}}
{{- end -}}

{{/* What the chart says, and what config says. Behind a terminator (tls.mode: off) one port, without TLS, is enough. */}}
{{- define "gateway.configuration" -}}
{{- $own := dict
  "domain" .Values.domain
  "publicUrl" (include "gateway.publicUrl" .)
  "dataDir" "/data/gateway"
  "metrics" (dict "listen" ":9464") -}}
{{- $listen := dict "https" ":8443" "http" ":8080" -}}
{{- if eq (include "gateway.plain" .) "true" -}}
{{- $listen = dict "https" "off" "http" ":8080" -}}
{{- end -}}
{{- $_ := set $own "listen" $listen -}}
{{- if .Values.fleet -}}
{{- $_ := set $own "secretFile" "/run/registry-gateway/secretFile" -}}
{{- $_ := set $own "cluster" (dict "listen" ":7443") -}}
{{- end -}}
{{- toYaml (merge $own .Values.config) -}}
{{- end -}}

{{- define "gateway.plain" -}}
{{- $tls := default dict .Values.config.tls -}}
{{- /* Written without quotes, off is YAML's word for false. */ -}}
{{- if hasKey $tls "mode" -}}
{{- if or (eq (toString $tls.mode) "off") (eq (toString $tls.mode) "false") }}true{{ end -}}
{{- end -}}
{{- end -}}
