"""Virtual CPU devices for commands that run JAX in their own process."""

import os


def use_virtual_devices(count: int) -> None:
    """Makes JAX split this machine's CPU into `count` devices. Call it before JAX is imported."""
    flags = os.environ.get("XLA_FLAGS", "")
    flags = f"{flags} --xla_force_host_platform_device_count={count}"
    os.environ["XLA_FLAGS"] = flags.strip()
