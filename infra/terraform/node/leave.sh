#!/usr/bin/env bash
# Ends this worker for good, so that nothing brings it back by itself, and says why. usage: leave.sh METRIC REASON
# METRIC is counted in CloudWatch (an alarm watches it). In an Auto Scaling group the wanted number goes down with it;
# elsewhere the machine shuts down, which terminates it.
set -Eeuo pipefail

metric=${1:?usage: leave.sh METRIC REASON}
reason=${2:?usage: leave.sh METRIC REASON}
imds=${IMDS:-http://169.254.169.254}

if [ "$ROLE" != worker ]; then
  echo "leave: a $ROLE stays, to be looked at: $reason" >&2
  exit 0
fi
echo "leave: $reason"
# No metric must keep the machine running: it costs by the second.
aws cloudwatch put-metric-data --namespace "$METRIC_NAMESPACE" --metric-name "$metric" --value 1 --dimensions "Cluster=$CLUSTER" ||
  echo "leave: the metric $metric could not be written" >&2
if [ "$SCALING" = asg ]; then
  session=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/latest/api/token")
  instance=$(curl -sf -H "X-aws-ec2-metadata-token: $session" "$imds/latest/meta-data/instance-id")
  if aws autoscaling terminate-instance-in-auto-scaling-group --instance-id "$instance" --should-decrement-desired-capacity >/dev/null; then
    exit 0
  fi
  echo "leave: the group did not let go of $instance; shutting down, the group may replace it" >&2
fi
sleep "${LEAVE_PAUSE_S:-30}" # the log agent sends what it has
systemctl poweroff
