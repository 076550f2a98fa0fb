import subprocess
import sys
from pathlib import Path

import pytest

from actors.pool.config import PoolConfig

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("timeout", "silence_s"), [(None, 15.0), ("200", 50.0)])
def test_head_may_be_silent_for_a_share_of_the_timeout_of_ray(
    timeout: str | None, silence_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "RAY_gcs_rpc_server_reconnect_timeout_s"
    monkeypatch.delenv(name, raising=False)
    if timeout is not None:
        monkeypatch.setenv(name, timeout)

    assert PoolConfig(1, 1, devices=1).head_silence_s == silence_s


def test_config_is_importable_without_ray() -> None:
    """Ray reads its variables when it is imported, and the driver sets them later."""
    program = "import sys; import actors.pool.config; print('ray' in sys.modules)"

    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert process.stdout == "False\n"
