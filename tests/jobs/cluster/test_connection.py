import signal
from pathlib import Path

import pytest

from tests.jobs.cluster.fake_ray import LOCAL, SHUTDOWN, closed_address, connect, head


def test_cluster_is_local_without_another(tmp_path: Path) -> None:
    result = connect(tmp_path)

    assert result["outcome"] == "local Ray"
    assert result["calls"] == [LOCAL, SHUTDOWN]


TOKEN = "of ray start"


def store_token(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(TOKEN)


def test_announced_cluster_is_joined_with_its_token(tmp_path: Path) -> None:
    store_token(tmp_path)

    with head(TOKEN) as address:
        result = connect(tmp_path, announced=address)

    assert result["outcome"] == f"Ray cluster at {address}"
    assert result["calls"] == [[address, None], SHUTDOWN]
    assert result["variables"]["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in result["variables"]
    assert result["left"] == []


def test_cluster_without_a_token_gets_none(tmp_path: Path) -> None:
    store_token(tmp_path)

    with head() as address:
        result = connect(tmp_path, announced=address)

    assert result["outcome"] == f"Ray cluster at {address}"
    assert result["variables"]["RAY_AUTH_MODE"] == "disabled"


def test_announced_cluster_with_another_token_is_an_error(tmp_path: Path) -> None:
    with head(TOKEN) as address:
        result = connect(tmp_path, announced=address)

    assert result["outcome"].startswith(
        f"ClusterConfigError: the Ray cluster at {address} needs a token; set RAY_AUTH_TOKEN"
    )
    assert result["calls"] == []


def test_announced_cluster_that_has_ended_is_replaced(tmp_path: Path) -> None:
    """The local Ray does not take over the token of the cluster that has ended."""
    store_token(tmp_path)
    address = closed_address()

    result = connect(tmp_path, announced=address)

    assert result["outcome"] == "local Ray"
    assert result["log"] == [
        f"the Ray cluster at {address} has ended ([Errno 111] Connection refused)"
    ]
    assert len(result["variables"]["RAY_AUTH_TOKEN"]) == 64


def test_announced_cluster_that_refuses_the_driver_is_an_error(tmp_path: Path) -> None:
    with head() as address:
        result = connect(tmp_path, announced=address, REFUSAL="other   version")

    assert result["outcome"] == (
        f"ClusterConfigError: the Ray cluster at {address} does not accept this driver (other "
        "version); compare the versions of Ray and Python, or set RAY_ADDRESS=local to use a Ray "
        "of this machine"
    )
    assert result["calls"] == [[address, None], SHUTDOWN]


def test_named_cluster_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    address = closed_address()

    result = connect(tmp_path, RAY_ADDRESS=address)

    assert result["outcome"] == (
        f"ClusterConfigError: no Ray cluster answers at RAY_ADDRESS={address} ([Errno 111] "
        "Connection refused); start it or unset it"
    )
    assert result["calls"] == []


def test_named_cluster_takes_precedence(tmp_path: Path) -> None:
    with head() as announced, head() as named:
        result = connect(tmp_path, announced=announced, RAY_ADDRESS=named)

    assert result["outcome"] == f"Ray cluster at {named}"


def test_local_address_takes_precedence(tmp_path: Path) -> None:
    with head() as announced:
        result = connect(tmp_path, announced=announced, RAY_ADDRESS="local")

    assert result["outcome"] == "local Ray"


def test_auto_address_is_the_announced_cluster_only(tmp_path: Path) -> None:
    with head() as address:
        joined = connect(tmp_path, announced=address, RAY_ADDRESS="auto")
    refused = connect(tmp_path, RAY_ADDRESS="auto")

    assert joined["outcome"] == f"Ray cluster at {address}"
    assert refused["outcome"].startswith("ClusterConfigError: RAY_ADDRESS=auto, and no running")
    assert refused["calls"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_ray_starts_interrupts_the_run(number: int, tmp_path: Path) -> None:
    """`ray.init` itself would end the program at SIGTERM with exit code 15."""
    result = connect(tmp_path, SIGNAL=str(int(number)))

    assert result["outcome"] == (
        "InterruptedRunError: the run was interrupted before it started; the same command starts "
        "it, or continues it"
    )
    (start,) = result["starts"]
    assert not start["runs"]
    assert not start["is_left"]
