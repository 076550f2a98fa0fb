import os
import subprocess
import sys
from pathlib import Path

from jobs.cluster.settings import (
    REASON_CHARS,
    cluster_variables,
    local_variables,
    one_line,
    ray_settings,
)
from jobs.run.plan import ROOT

# Ray is imported first, as in a notebook.
REAL_RAY = """
import os
import ray
from ray._private import services
from ray._raylet import AuthenticationMode, AuthenticationTokenLoader, get_authentication_mode
from jobs.cluster.settings import local_variables, ray_settings

for _ in range(2):
    with ray_settings(local_variables(os.environ)):
        token = AuthenticationTokenLoader.instance().get_raw_token()
        print(get_authentication_mode() == AuthenticationMode.TOKEN)
        print(token == os.environ["RAY_AUTH_TOKEN"])
        print(services.get_node_ip_address())
print(os.environ.get("RAY_AUTH_MODE"), os.environ.get("RAY_AUTH_TOKEN"))
"""


def test_settings_reach_a_ray_that_is_imported_already(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}

    process = subprocess.run(
        [sys.executable, "-c", REAL_RAY],
        cwd=ROOT,
        env=kept | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    once = ["True", "True", "127.0.0.1"]
    assert process.stdout.splitlines() == [*once, *once, "None None"]


def test_settings_are_set_for_the_block_unless_the_user_has_set_them() -> None:
    os.environ["RAY_TEST_USER"] = "user"
    try:
        with ray_settings({"RAY_TEST_USER": "job", "RAY_TEST_JOB": "job"}):
            assert os.environ["RAY_TEST_USER"] == "user"
            assert os.environ["RAY_TEST_JOB"] == "job"
        assert os.environ["RAY_TEST_USER"] == "user"
        assert "RAY_TEST_JOB" not in os.environ
    finally:
        del os.environ["RAY_TEST_USER"]


def test_cluster_variables_choose_the_mode() -> None:
    assert cluster_variables("token")["RAY_AUTH_MODE"] == "token"
    assert cluster_variables("disabled")["RAY_AUTH_MODE"] == "disabled"


def test_local_variables_leave_authentication_that_is_off() -> None:
    assert "RAY_AUTH_TOKEN" not in local_variables({"RAY_AUTH_MODE": "disabled"})
    assert len(local_variables({"RAY_AUTH_MODE": "token"})["RAY_AUTH_TOKEN"]) == 64


def test_error_of_ray_becomes_a_short_line() -> None:
    assert one_line(RuntimeError("two\n  lines")) == "two lines"
    assert one_line(RuntimeError()) == "RuntimeError"
    assert len(one_line(RuntimeError("x" * 1000))) == REASON_CHARS
