"""Writes the configuration of Ray's autoscaler from the outputs of `terraform output -json`.

The autoscaler starts and ends GPU machines.

    terraform -chdir=infra/terraform/environments/example output -json |
        python infra/ray/autoscaler.py > autoscaler.yaml
    ray start --head --autoscaling-config=autoscaler.yaml …

Machines set themselves up: the user data of their launch template installs the release, fills the
cache of weights and runs `ray start` with the cluster's token. So Ray reaches none of them over
SSH: `disable_node_updaters`, and no commands. The file is complete, as a head that is started by
hand fills in no defaults. Needs PyYAML only.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HEAD, WORKER = "head", "gpu"  # node types; the head's instance carries its type as a tag
NEEDED = (
    "name",
    "region",
    "head_node_config",
    "worker_node_config",
    "head_resources",
    "worker_resources",
    "max_workers",
    "idle_timeout_minutes",
)


class OutputsError(Exception):
    """The outputs do not describe a cluster."""


def cluster_of(outputs: object) -> Mapping[str, Any]:
    """Returns the object `cluster` of Terraform's outputs.

    Raises:
        OutputsError: it is not there, or a part of it is missing.
    """
    found = outputs.get("cluster") if isinstance(outputs, dict) else None
    cluster = found.get("value") if isinstance(found, dict) else None
    if not isinstance(cluster, dict):
        raise OutputsError(
            "expected the output `cluster` of infra/terraform, found none; give all of `terraform "
            "output -json`"
        )
    missing = [name for name in NEEDED if cluster.get(name) is None]
    if missing:
        raise OutputsError(
            f"the output `cluster` lacks {', '.join(missing)}; apply infra/terraform of this "
            "version"
        )
    return cluster


def autoscaler_config(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration as Ray's own schema wants it."""
    maximum = int(cluster["max_workers"])
    return {
        "cluster_name": cluster["name"],
        "max_workers": maximum,
        # all that are asked for at once: a replica takes a whole machine
        "upscaling_speed": float(max(1, maximum)),
        "idle_timeout_minutes": cluster["idle_timeout_minutes"],
        "provider": {
            "type": "aws",
            "region": cluster["region"],
            # a stopped machine loses its NVMe disks, and with them the weights
            "cache_stopped_nodes": False,
            "disable_node_updaters": True,
        },
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: _node_type(cluster["head_node_config"], cluster["head_resources"], 0),
            WORKER: _node_type(cluster["worker_node_config"], cluster["worker_resources"], maximum),
        },
        **_NOTHING,
    }


# What Ray asks to be there, empty: nothing is copied to machines and nothing is run on them.
_NOTHING: dict[str, Any] = {
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}


def _node_type(
    node_config: Mapping[str, Any], resources: Mapping[str, Any], maximum: int
) -> dict[str, Any]:
    whole = {name: int(amount) for name, amount in resources.items()}
    return {
        "node_config": dict(node_config),
        "resources": whole,
        "min_workers": 0,
        "max_workers": maximum,
    }


def main(arguments: Sequence[str]) -> int:
    """Writes the configuration of a command line and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="autoscaler.py", description=str(__doc__).split("\n\n", maxsplit=1)[0]
    )
    parser.add_argument(
        "outputs",
        nargs="?",
        help="file with the output of `terraform output -json`; standard input by default",
    )
    parser.add_argument("-o", "--output", help="file to write; standard output by default")
    asked = parser.parse_args(arguments)
    try:
        text = Path(asked.outputs).read_text() if asked.outputs else sys.stdin.read()
        config = autoscaler_config(cluster_of(json.loads(text)))
    except (OSError, json.JSONDecodeError, OutputsError) as error:
        print(f"error: {asked.outputs or 'standard input'}: {error}", file=sys.stderr)
        return 2
    made = "# Made by infra/ray/autoscaler.py of Terraform's outputs: "
    made += "change those, and make it again.\n"
    made += yaml.safe_dump(config, sort_keys=False)
    if asked.output:
        Path(asked.output).write_text(made)
    else:
        sys.stdout.write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
