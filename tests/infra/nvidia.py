"""A fake nvidia-smi: eight healthy H100, or with a fault.

The forms are those of nvidia-smi 570: --query-gpu and --query-remapped-rows as CSV, nvlink --status
as text.
"""

from dataclasses import dataclass

BODY = """
health = {health!r}
fields = args[0].partition("=")[2].split(",")
for gpu in range(health["number"]):
    values = {{
        "index": str(gpu),
        "driver_version": health["driver"],
        "ecc.errors.uncorrected.volatile.total": health["ecc"] if gpu == 0 else "0",
        "fabric.state": health["fabric"],
        "gpu_bus_id": f"00000000:{{gpu}}0:00.0",
        "remapped_rows.pending": health["pending"] if gpu == 0 else "0",
        "remapped_rows.failure": health["failure"] if gpu == 0 else "0",
    }}
    if args[0] == "nvlink":
        print(f"GPU {{gpu}}: NVIDIA H100 80GB HBM3 (UUID: GPU-{{gpu}})")
        for link in range(health["links"]):
            slow = gpu == 0 and link == 3 and health["slow_link"]
            print(f"\\t Link {{link}}: {{slow or health['speed']}}")
    elif args[0].startswith("--query-compute-apps"):
        if gpu < health["processes"]:
            print(1000 + gpu)
    else:
        print(", ".join(values[field] for field in fields))
"""


@dataclass(frozen=True)
class Gpus:
    """What nvidia-smi reports. A fault is that of the first GPU, `fabric` and `driver` of all."""

    number: int = 8
    driver: str = "570.133.20"
    ecc: str = "0"
    fabric: str = "Completed"
    pending: str = "0"
    failure: str = "0"
    links: int = 18
    speed: str = "26.562 GB/s"
    slow_link: str = ""
    processes: int = 0

    def body(self) -> str:
        """Returns the body of a fake command (tests.infra.cloud.Commands.fake)."""
        return BODY.format(health=vars(self))
