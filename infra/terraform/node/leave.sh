#!/usr/bin/env bash
# Ends this worker for good and says why. usage: leave.sh METRIC REASON
# METRIC is counted in CloudWatch (an alarm watches it): WorkerIdle, WorkerGaveUp, GpuFailed or BootFailed. In an Auto Scaling group
# the wanted number goes down with the first two. With the others the group starts another machine, which may do better; fleet.py on
# the head stops it after a few failed boots in a row.
# Elsewhere the machine shuts down, which terminates it.
set -Eeuo pipefail

metric=${1:?usage: leave.sh METRIC REASON}
reason=${2:?usage: leave.sh METRIC REASON}
imds=${IMDS:-http://169.254.169.254}
boot_log=${BOOT_LOG:-/var/log/grok-batch/boot.log}

if [ "$ROLE" != worker ]; then
  echo "leave: a $ROLE stays, to be looked at: $reason" >&2
  exit 0
fi
echo "leave: $reason"
metadata() {
  local session
  session=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/latest/api/token") || return 1
  curl -sf -H "X-aws-ec2-metadata-token: $session" "$imds/latest/meta-data/$1"
}
instance=$(metadata instance-id) || instance=unknown

# Neither metric nor reason must keep the machine running: it costs by the second.
aws cloudwatch put-metric-data --namespace "$METRIC_NAMESPACE" --metric-name "$metric" --value 1 --dimensions "Cluster=$CLUSTER" ||
  echo "leave: the metric $metric could not be written" >&2
decrement=--should-decrement-desired-capacity
case $metric in BootFailed | GpuFailed) decrement=--no-should-decrement-desired-capacity ;; esac
if [ "$metric" = BootFailed ]; then
  { echo "$reason"; tail -n 60 "$boot_log" || true; } |
    aws s3 cp --only-show-errors - "$BOOTS_URL/$(date -u +%Y%m%dT%H%M%SZ)-$instance-failed" ||
    echo "leave: the reason could not be written to $BOOTS_URL" >&2
fi
sleep "${LEAVE_PAUSE_S:-30}" # the log agent sends what it has

if [ "$SCALING" = asg ]; then
  if aws autoscaling terminate-instance-in-auto-scaling-group --instance-id "$instance" "$decrement" >/dev/null; then
    # The group waits for the hook, up to LIFECYCLE_HOOK_S at full price, and nobody else may be left to answer it.
    for ((attempt = 1; attempt <= ${HOOK_ATTEMPTS:-24}; attempt++)); do
      if [ "$(metadata autoscaling/target-lifecycle-state)" = Terminated ] &&
        aws autoscaling complete-lifecycle-action --lifecycle-action-result CONTINUE --auto-scaling-group-name "$ASG_NAME" \
          --lifecycle-hook-name "$LIFECYCLE_HOOK" --instance-id "$instance"; then
        exit 0
      fi
      sleep "${HOOK_PAUSE_S:-5}"
    done
    echo "leave: the hook $LIFECYCLE_HOOK could not be completed; shutting down" >&2
  else
    echo "leave: the group did not let go of $instance; shutting down, the group may replace it" >&2
  fi
fi
systemctl poweroff
