import os

import pytest

from jobs.cli.virtual_devices import use_virtual_devices

FLAG = "--xla_force_host_platform_device_count"


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (None, f"{FLAG}=4"),
        ("--xla_dump_to=x", f"--xla_dump_to=x {FLAG}=4"),
        (f"{FLAG}=2", f"{FLAG}=2 {FLAG}=4"),  # XLA takes the last value of a flag
    ],
)
def test_virtual_devices_are_added_to_the_flags_of_xla(
    before: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", before or "")
    if before is None:
        monkeypatch.delenv("XLA_FLAGS")

    use_virtual_devices(4)

    assert os.environ["XLA_FLAGS"] == expected
