"""Drains the Ray node at this machine's address.

The node gets no more work and hands back what it cannot end.

    python drain.py --address HEAD:6379 --ip 10.42.0.17 --reason "spot interruption" --seconds 110

Does what `ray drain-node` does, which needs the node's id, or guesses it by starting a driver here:
seconds, and of two minutes. The version of Ray is pinned and tests/infra/test_terraform_watch.py
drains a real node.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled

# made while it is imported
from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]


def drain(address: str, ip: str, reason: str, deadline_ms: int) -> str:
    """Drains the living node of an IP address and returns its id.

    Raises:
        LookupError: Ray has no living node there.
        RuntimeError: Ray refuses, for example because a busy node's deadline has passed.
    """
    client = GcsClient(address=address)
    alive: list[str] = [
        node_id.hex()
        for node_id, node in client.get_all_node_info(timeout=10).items()
        if node.node_manager_address == ip and node.state == GcsNodeInfo.GcsNodeState.ALIVE
    ]
    if not alive:
        raise LookupError(
            f"the head at {address} has no living node at {ip}; it has not joined yet, or is gone "
            "already"
        )
    accepted, why = client.drain_node(
        alive[0], DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, reason, deadline_ms
    )
    if not accepted:
        raise RuntimeError(f"Ray does not drain node {alive[0]}: {why}")
    return alive[0]


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        "drain.py", None, str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", required=True, help="host:port of the head's GCS")
    parser.add_argument("--ip", required=True, help="address by which this node joined")
    parser.add_argument("--reason", required=True, help="one sentence, shown by Ray")
    parser.add_argument(
        "--seconds", required=True, type=int, help="after which the machine is gone"
    )
    given = parser.parse_args(arguments)
    try:
        node = drain(
            given.address,
            given.ip,
            given.reason,
            time.time_ns() // 1_000_000 + given.seconds * 1000,
        )
    except (LookupError, RuntimeError) as error:
        sys.stderr.write(f"drain: {error}\n")
        return 1
    sys.stdout.write(f"drain: node {node} of {given.ip} takes no more work\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
