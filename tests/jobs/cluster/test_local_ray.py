from pathlib import Path

from tests.jobs.cluster.fake_ray import LOCAL, SHUTDOWN, connect


def test_local_ray_has_a_random_token_and_listens_on_loopback(tmp_path: Path) -> None:
    results = [connect(tmp_path), connect(tmp_path)]

    tokens = set()
    for result in results:
        assert result["variables"]["RAY_AUTH_MODE"] == "token"
        assert result["variables"]["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
        assert result["left"] == []
        tokens.add(result["variables"]["RAY_AUTH_TOKEN"])
    assert len(tokens) == 2
    assert min(map(len, tokens)) == 64


def test_local_ray_writes_no_token_file(tmp_path: Path) -> None:
    connect(tmp_path, RAY_AUTH_MODE="token")

    assert not (tmp_path / ".ray").exists()


def test_local_ray_keeps_authentication_of_the_user(tmp_path: Path) -> None:
    result = connect(tmp_path, RAY_AUTH_MODE="disabled")

    assert result["variables"]["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in result["variables"]


def test_local_ray_has_a_private_folder_that_ends_with_it(tmp_path: Path) -> None:
    (start,) = connect(tmp_path)["starts"]

    assert Path(start["folder"]).is_relative_to(tmp_path) or "grok-batch-" in start["folder"]
    assert start["mode"] == 0o700
    assert not start["is_left"]
    assert not start["runs"]


def test_local_ray_starts_again_after_a_timeout(tmp_path: Path) -> None:
    result = connect(tmp_path, FAILED_STARTS="2")

    assert result["outcome"] == "local Ray"
    assert result["calls"] == [LOCAL, SHUTDOWN] * 3
    reason = "The current node timed out during startup."
    assert result["log"] == [
        f"start 1 of 3 of a local Ray has failed ({reason})",
        f"start 2 of 3 of a local Ray has failed ({reason})",
    ]
    assert len({start["folder"] for start in result["starts"]}) == 3
    assert [start["runs"] or start["is_left"] for start in result["starts"]] == [False] * 3


def test_local_ray_that_never_starts_loses_the_cluster(tmp_path: Path) -> None:
    result = connect(tmp_path, FAILED_STARTS="9")

    assert result["outcome"] == (
        "ClusterLostError: no local Ray has come up in 3 starts (the last: The current node timed "
        "out during startup.); end other work on this machine, or set RAY_ADDRESS to a running "
        "cluster; the same command goes on"
    )
    assert [start["runs"] or start["is_left"] for start in result["starts"]] == [False] * 3
