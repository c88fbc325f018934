{{- define "ipmp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "ipmp.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "ipmp.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "ipmp.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* A digest wins over the tag: it names one image only. */}}
{{- define "ipmp.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry | default (.Values.global | default dict).imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Selectors are immutable: these labels never change. Argument: dict "root" . "component" NAME */}}
{{- define "ipmp.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ipmp.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of an object; "manager" names who applies it where that is not Helm, "more" are labels for it alone. The chart's
own win over these, and these over commonLabels. */}}
{{- define "ipmp.labels" -}}
{{- $labels := include "ipmp.selectorLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "ipmp" -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" (.manager | default .root.Release.Service) -}}
{{- if not .manager -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- end -}}
{{- toYaml (merge $labels (.more | default dict) (.root.Values.commonLabels | default dict)) }}
{{- end }}

{{/* Labels of pods: the component's podLabels come to those of objects. The manager never changes with Helm's version. */}}
{{- define "ipmp.podLabels" -}}
{{- $manager := dict "agent" "ipmp-operator" "operator" .root.Release.Service | dig .component "" -}}
{{- include "ipmp.labels" (merge (dict "manager" $manager "more" (index .root.Values .component).podLabels) .) }}
{{- end }}

{{- define "ipmp.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (printf "%s-%s" (include "ipmp.fullname" .root) .component) -}}
{{- else -}}
{{- $account.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "ipmp.apiServerEnv" -}}
{{- with .Values.apiServer }}
{{- if .host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .port | quote }}
{{- end }}
{{- end }}
{{- end }}
