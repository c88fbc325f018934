{{/* The agents' DaemonSet. The operator applies it and adds the node affinity: it knows where agents are needed. */}}
{{- define "ipmp.agentDaemonSet" -}}
{{- $component := dict "root" . "component" "agent" -}}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ include "ipmp.fullname" . }}-agent
  namespace: {{ .Release.Namespace | quote }}
  labels:
    {{- include "ipmp.labels" (merge (dict "manager" "ipmp-operator") $component) | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "ipmp.selectorLabels" $component | nindent 6 }}
  updateStrategy:
    type: {{ .Values.agent.updateStrategy }}
    {{- if eq .Values.agent.updateStrategy "RollingUpdate" }}
    rollingUpdate:
      maxUnavailable: {{ .Values.agent.maxUnavailable }}
    {{- end }}
  template:
    metadata:
      labels:
        {{- include "ipmp.podLabels" $component | nindent 8 }}
      annotations:
        {{- $own := dict "kubectl.kubernetes.io/default-container" "agent" }}
        {{- toYaml (merge $own (.Values.agent.podAnnotations | default dict)) | nindent 8 }}
    spec:
      serviceAccountName: {{ include "ipmp.serviceAccountName" $component | quote }}
      {{- with .Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      {{- with .Values.agent.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      terminationGracePeriodSeconds: {{ .Values.agent.terminationGracePeriodSeconds }}
      nodeSelector:
        kubernetes.io/os: linux
      {{- with .Values.agent.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.agent.affinity }}
      {{- $required := dig "nodeAffinity" "requiredDuringSchedulingIgnoredDuringExecution" "nodeSelectorTerms" list . }}
      {{- if gt (len $required) 1 }}
      {{- fail "agent.affinity: one required node selector term at most, which the operator joins to those of the groups" }}
      {{- end }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: agent
          image: {{ include "ipmp.image" . | quote }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          command:
            - ipmp-agent
            - run
            - {{ printf "--state-dir=%s" .Values.agent.stateDir | quote }}
            - {{ printf "--runtime-dir=%s" .Values.agent.runtimeDir | quote }}
            - --metrics-address={{ if contains ":" .Values.agent.metrics.host }}[{{ .Values.agent.metrics.host }}]{{ else }}{{ .Values.agent.metrics.host }}{{ end }}:{{ .Values.agent.metrics.port }}
            {{- if not .Values.agent.trials }}
            - --no-trial
            {{- end }}
            {{- with .Values.agent.record }}
            {{- if .enabled }}
            - {{ printf "--record=%s/recording.jsonl" $.Values.agent.stateDir | quote }}
            - --record-size={{ .sizeMebibytes }}
            {{- end }}
            {{- end }}
            - --log-format={{ .Values.log.format }}
            - --log-level={{ .Values.log.level }}
            {{- with .Values.agent.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          env:
            - name: NODE_NAME
              valueFrom:
                fieldRef:
                  fieldPath: spec.nodeName
            - name: POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
            # For ipmpstat in this container.
            - name: IPMP_RUNTIME_DIR
              value: {{ .Values.agent.runtimeDir | quote }}
            {{- include "ipmp.apiServerEnv" . | nindent 12 }}
            {{- with .Values.agent.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - name: metrics
              containerPort: {{ .Values.agent.metrics.port }}
              protocol: TCP
          # Slow to judge: a restart would cost the detection history, and the kubelet's probes are late when the node is busy.
          livenessProbe:
            httpGet:
              host: 127.0.0.1
              path: /healthz
              port: metrics
            {{- with .Values.agent.livenessProbe }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          readinessProbe:
            httpGet:
              host: 127.0.0.1
              path: /readyz
              port: metrics
            {{- with .Values.agent.readinessProbe }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with .Values.agent.resources }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          # Kubernetes gives capabilities to root only. These two of root's powers are all that is left to it.
          securityContext:
            runAsUser: 0
            runAsGroup: 0
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
              add: [NET_ADMIN, NET_RAW]
            {{- with .Values.agent.securityContext }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          volumeMounts:
            - name: state
              mountPath: {{ .Values.agent.stateDir | quote }}
            - name: runtime
              mountPath: {{ .Values.agent.runtimeDir | quote }}
            {{- with .Values.agent.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: state
          hostPath:
            path: {{ .Values.agent.stateDir | quote }}
            type: DirectoryOrCreate
        - name: runtime
          hostPath:
            path: {{ .Values.agent.runtimeDir | quote }}
            type: DirectoryOrCreate
        {{- with .Values.agent.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}
