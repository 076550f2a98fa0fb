#!/usr/bin/env bash
# Prints the CloudWatch agent's configuration for this role: which files go to which log group, one stream per file and instance.
# Of a pattern the agent follows the newest file alone, unless publish_multi_logs is set: then each, its name appended to the stream's.
set -Eeuo pipefail
ray=${RAY_TMPDIR:-/tmp}/ray/session_latest/logs

entries=()
# file PATH GROUP STREAM: one file by its name
file() {
  local text
  printf -v text '{"file_path": "%s", "log_group_name": "/%s/%s", "log_stream_name": "{instance_id}/%s", "timezone": "UTC"}' "$1" "$CLUSTER" "$2" "$3"
  entries+=("$text")
}
# files PATTERN GROUP STREAM: every file of a pattern
files() {
  local text
  printf -v text '{"file_path": "%s", "log_group_name": "/%s/%s", "log_stream_name": "{instance_id}/%s", "publish_multi_logs": true, "timezone": "UTC"}' "$1" "$CLUSTER" "$2" "$3"
  entries+=("$text")
}

file /var/log/cloud-init-output.log "$ROLE" cloud-init
for service in boot ray leave kernel; do file "/var/log/grok-batch/$service.log" "$ROLE" "$service"; done
files "$ray/raylet.*" "$ROLE" raylet
files "$ray/worker-*.err" "$ROLE" stderr
files "$ray/worker-*.out" "$ROLE" stdout
if [ "$ROLE" = head ]; then
  for service in fleet nightly; do file "/var/log/grok-batch/$service.log" "$ROLE" "$service"; done
  files "$ray/job-driver-*.log" jobs driver
  files "$ray/monitor.*" "$ROLE" autoscaler
  files "$ray/gcs_server.*" "$ROLE" gcs
else
  file /var/log/grok-batch/watch.log "$ROLE" watch
fi

printf '{"agent": {"run_as_user": "root"}, "logs": {"logs_collected": {"files": {"collect_list": [\n'
(
  IFS=,
  printf '%s\n' "${entries[*]}"
)
printf ']}}}}\n'
