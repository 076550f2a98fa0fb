#!/usr/bin/env bash
# Makes a machine a node of the cluster, at every boot: logs, disk, packages, token, GPU check, weights, then Ray.
# In: /etc/grok-batch/node.env. What is done already is passed over. Run by grok-batch-boot.service, which limits its time.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
release=$(cd "$here/../../.." && pwd)
say() { echo "grok-batch boot: $*"; }

say "role $ROLE of cluster $CLUSTER, release $RELEASE_VERSION"
id ray >/dev/null 2>&1 || useradd --system --create-home --shell /usr/sbin/nologin ray
install -d -m 0755 /var/log/grok-batch
install -d -o ray -g ray -m 0750 /var/lib/grok-batch
rm -f /var/lib/grok-batch/ray-address # of an earlier boot: watch.py would take this one for idle

# Before the steps that can fail: their reasons must leave the machine.
say "logs"
systemctl enable --now --no-block grok-batch-kernel.service
"$here/logs.sh" >/etc/grok-batch/cloudwatch-agent.json
/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s -c file:/etc/grok-batch/cloudwatch-agent.json
install -m 0644 "$here/logrotate.conf" /etc/logrotate.d/grok-batch

if [ "$ROLE" = worker ]; then
  # From here on minutes count, and a group that scales in is answered.
  systemctl enable --now --no-block grok-batch-watch.service
  say "instance store"
  "$here/nvme.sh" "$NVME"
  install -d -o ray -g ray -m 0750 "$NVME/spill" "$NVME/caches" "$NVME/weights"
fi

say "packages"
# The wheels travel with the release: nothing is asked of the internet, and pip compares every digest with the lock file.
PIP_NO_INDEX=1 PIP_FIND_LINKS="$release/../wheels" \
  make --silent -C "$release" INSTALLER=pip PYTHON=python3.12 LOCK=requirements-cuda12.lock setup

say "token"
"$here/token.sh" /etc/grok-batch/ray-auth-token
chown ray:ray /etc/grok-batch/ray-auth-token

if [ "$ROLE" = worker ]; then
  say "GPUs"
  python3.12 "$here/gpu_health.py" --gpus "$WORKER_GPUS"
  # A sum over all GPUs and an answer of the demo model: NCCL, NVLink and arithmetic.
  runuser -u ray -- env XDG_CACHE_HOME="$NVME/caches" timeout "${SMOKE_S:-300}" \
    "$release/.venv/bin/python" "$release/jobs/smoke.py" --gpus "$WORKER_GPUS"
  say "weights"
  "$here/weights.sh" "$WEIGHTS_URL" "$NVME/weights"
  chown -R ray:ray "$NVME/weights"
  shutdown -c # the limit of the first boot
  systemctl enable --now --no-block grok-batch-ray.service
else
  systemctl enable --now --no-block grok-batch-ray.service grok-batch-fleet.service
fi
say "done"
