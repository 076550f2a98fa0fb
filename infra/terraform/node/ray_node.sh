#!/usr/bin/env bash
# Runs Ray in the foreground, as head or as worker of the head whose address is in SSM Parameter Store. Run by grok-batch-ray.service.
# Everything asks for the token; dashboard and job server listen on this machine only and are reached through SSM.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
release=$(cd "$here/../../.." && pwd)
imds=${IMDS:-http://169.254.169.254}
session=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/latest/api/token")
metadata() { curl -sf -H "X-aws-ec2-metadata-token: $session" "$imds/latest/meta-data/$1"; }
ip=$(metadata local-ipv4)
RAY_CLOUD_INSTANCE_ID=$(metadata instance-id)

export RAY_CLOUD_INSTANCE_ID RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-/etc/grok-batch/ray-auth-token}
export RAY_USAGE_STATS_ENABLED=0
export RAY_JOB_STOP_WAIT_TIME_S=120 # a job that `ray job stop` ends commits what is complete; Ray's default kills it after 3 s
export PATH=$release/.venv/bin:$PATH # `ray job submit` takes python from the head's PATH

flags=(--block --node-ip-address "$ip" --metrics-export-port "$METRICS_PORT" --disable-usage-stats --log-style record)

if [ "$ROLE" = head ]; then
  # Nothing but drivers runs here: replicas would take its memory.
  flags+=(--head --port "$GCS_PORT" --num-cpus 0 --num-gpus 0 --dashboard-host 127.0.0.1 --dashboard-port 8265)
  config=$STATE/autoscaler.yaml
  if [ "$SCALING" = ray ]; then
    if aws s3 cp --only-show-errors "$AUTOSCALER_URL" "$STATE/autoscaler.full.yaml"; then
      # fleet.py lowers the copy that Ray reads while boots fail.
      [ -e "$STATE/breaker-open" ] && [ -e "$config" ] || cp "$STATE/autoscaler.full.yaml" "$config"
      flags+=(--autoscaling-config "$config")
    else
      echo "ray: no $AUTOSCALER_URL yet, so nothing starts workers; make it, put it there, systemctl restart grok-batch-ray" >&2
    fi
  fi
else
  python3.12 "$here/gpu_health.py" --gpus "$WORKER_GPUS" # also before it joins again
  head=$(aws ssm get-parameter --name "$HEAD_IP_PARAMETER" --query Parameter.Value --output text)
  # Replicas copy compiled programs between the disk and the URL; the first replica compiles for all machines.
  export GROK_BATCH_WEIGHTS_CACHE=$NVME/weights JAX_COMPILATION_CACHE_DIR=$JAX_CACHE_URL XDG_CACHE_HOME=$NVME/caches
  printf '%s\n' "$head:$GCS_PORT" >"$STATE/ray-address" # watch.py drains this node there
  flags+=(--address "$head:$GCS_PORT" --num-gpus "$WORKER_GPUS" --object-spilling-directory "$NVME/spill")
fi
cd / # the current folder becomes the jobs' own; the release must not shadow what a job brings along
exec "${RAY:-ray}" start "${flags[@]}"
