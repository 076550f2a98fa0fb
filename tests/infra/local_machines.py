"""A cloud provider for Ray's autoscaler whose machines are processes on this machine.

Each machine has its own loopback address and joins the cluster by itself.

That is how machines of infra/terraform behave: Ray asks for one and hears of it again when its own
`ray start` has joined. The file named by LOCAL_MACHINES_LOG tells what was asked for.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)
from ray.util import get_node_ip_address

from tests.ray_nodes import free_ports

HEAD_TAGS = {
    TAG_RAY_NODE_KIND: NODE_KIND_HEAD,
    TAG_RAY_USER_NODE_TYPE: "head",
    TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
}


class LocalMachines(NodeProvider):
    """Machines by address: this machine's own is the head, 127.0.0.2 and so on come and go."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._tags: dict[str, dict[str, str]] = {get_node_ip_address(): dict(HEAD_TAGS)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._numbers = itertools.count(2)

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        return [node for node, tags in self._tags.items() if tag_filters.items() <= tags.items()]

    def is_running(self, node_id: str) -> bool:
        return node_id in self._tags

    def is_terminated(self, node_id: str) -> bool:
        return node_id not in self._tags

    def node_tags(self, node_id: str) -> dict[str, str]:
        return self._tags[node_id]

    def internal_ip(self, node_id: str) -> str:
        return node_id

    def external_ip(self, node_id: str) -> str:
        return node_id

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        self._tags[node_id].update(tags)

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:
        for _ in range(count):
            node, (agent, metrics) = f"127.0.0.{next(self._numbers)}", free_ports(2)
            flags = [
                "--address",
                self.provider_config["gcs"],
                f"--node-ip-address={node}",
                "--num-cpus=2",
                "--num-gpus=8",
            ]
            flags += ["--dashboard-agent-listen-port", agent, "--metrics-export-port", metrics]
            start = [
                str(Path(sys.executable).parent / "ray"),
                "start",
                *flags,
                "--block",
                "--disable-usage-stats",
            ]
            # Ray gives a node half a minute to come up: not enough where other work is heavy.
            command = ["/bin/sh", "-c", 'for _ in 1 2 3; do "$@"; done', "sh", *start]
            self._processes[node] = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
            )
            self._tags[node] = dict(tags)
            self._log("create", node, node_config)

    def terminate_node(self, node_id: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._processes[node_id].pid, signal.SIGKILL)
        self._processes.pop(node_id).wait()
        del self._tags[node_id]
        self._log("terminate", node_id, {})

    def _log(self, what: str, node: str, node_config: dict[str, Any]) -> None:
        with Path(os.environ["LOCAL_MACHINES_LOG"]).open("a") as log:
            pid = self._processes[node].pid if node in self._processes else None
            log.write(
                json.dumps({"what": what, "node": node, "config": node_config, "pid": pid}) + "\n"
            )
