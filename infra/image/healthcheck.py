"""Is this container well? With a Ray node in it: does the node say so.

Without: yes, since this process could start.

Docker runs it (HEALTHCHECK); KubeRay has probes of its own, which ask the same. Standard library
only.
"""

import sys
import urllib.request
from pathlib import Path

# of the node that `ray start` began with its default ports
AGENT = "http://127.0.0.1:52365/api/local_raylet_healthz"


def has_node(processes: Path = Path("/proc")) -> bool:
    """Whether a raylet runs here."""
    for name in processes.glob("[0-9]*/comm"):
        try:
            if name.read_text().strip() == "raylet":
                return True
        except OSError:
            continue  # it has ended meanwhile
    return False


def healthy(url: str) -> bool:
    """Whether the node's agent calls its raylet healthy."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(b"success" in answer.read())
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if not has_node() or healthy(AGENT) else 1)
