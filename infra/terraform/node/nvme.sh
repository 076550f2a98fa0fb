#!/usr/bin/env bash
# All instance-store disks of this machine -> one striped XFS file system at the folder given. usage: nvme.sh FOLDER
# Instance store is encrypted by the hardware and empty after every stop; after a reboot the array is there and only mounted.
set -Eeuo pipefail

target=${1:?usage: nvme.sh FOLDER}
array=/dev/md/grok-batch

if mountpoint -q "$target"; then
  echo "nvme: $target is mounted"
  exit 0
fi
mkdir -p "$target"

# Deep Learning AMIs stripe and mount the disks themselves, by a service of their own: wait for it, or both take the same disks.
if systemctl cat dlami-nvme.service >/dev/null 2>&1; then
  systemctl start dlami-nvme.service || echo "nvme: dlami-nvme.service failed; the disks are set up here" >&2
fi
if mountpoint -q /opt/dlami/nvme; then
  mount --bind /opt/dlami/nvme "$target"
  echo "nvme: $target is /opt/dlami/nvme"
  exit 0
fi

mapfile -t disks < <(lsblk --nodeps --noheadings --paths --output NAME,MODEL | awk '/Amazon EC2 NVMe Instance Storage/ {print $1}' | sort)
if ((${#disks[@]} == 0)); then
  echo "nvme: no instance store on this machine; expected an instance type with NVMe disks, such as p5.48xlarge" >&2
  exit 1
fi
if ! mdadm --assemble --quiet "$array" "${disks[@]}"; then
  mdadm --create "$array" --run --quiet --level=0 --force --raid-devices="${#disks[@]}" "${disks[@]}"
  mkfs.xfs -q -f "$array"
fi
mount -o noatime "$array" "$target"
echo "nvme: ${#disks[@]} disks at $target"
