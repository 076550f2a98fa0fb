#!/usr/bin/env bash
# Prints the CloudWatch agent's configuration for this role: which files go to which log group, one stream per instance.
set -Eeuo pipefail
ray=${RAY_TMPDIR:-/tmp}/ray/session_latest/logs

file() { printf '{"file_path": "%s", "log_group_name": "/%s/%s", "log_stream_name": "{instance_id}%s", "timezone": "UTC"}' "$1" "$CLUSTER" "$2" "$3"; }

printf '{"agent": {"run_as_user": "root"}, "logs": {"logs_collected": {"files": {"collect_list": [\n'
printf '  %s,\n' "$(file /var/log/cloud-init-output.log "$ROLE" /boot)"
printf '  %s,\n' "$(file '/var/log/grok-batch/*.log' "$ROLE" /services)"
if [ "$ROLE" = head ]; then
  printf '  %s,\n' "$(file "$ray/job-driver-*.log" jobs /drivers)"
  printf '  %s,\n' "$(file "$ray/monitor.*" "$ROLE" /autoscaler)"
fi
printf '  %s\n' "$(file "$ray/raylet.*" "$ROLE" /raylet)"
printf ']}}}}\n'
