from pathlib import Path

import pytest

from jobs.cluster.address import ClusterConfigError
from jobs.cluster.authentication import choose_mode, configured_token, token_is_configured
from jobs.cluster.probe import NoAnswerError
from tests.jobs.cluster.fake_ray import closed_address, head


def test_token_is_configured_by_a_variable_or_the_file(tmp_path: Path) -> None:
    token_file = tmp_path / "auth_token"

    assert not token_is_configured({"RAY_AUTH_TOKEN": ""}, token_file)
    assert token_is_configured({"RAY_AUTH_TOKEN": "t"}, token_file)
    assert token_is_configured({"RAY_AUTH_TOKEN_PATH": "/t"}, token_file)
    token_file.touch()
    assert token_is_configured({}, token_file)


def test_configured_token_is_read_from_where_ray_reads_it(tmp_path: Path) -> None:
    token_file = tmp_path / "auth_token"
    assert configured_token({}, token_file) is None

    token_file.write_text("default\n")
    (tmp_path / "named").write_text("named\n")
    named = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "named")}
    assert configured_token({}, token_file) == "default"
    assert configured_token(named, token_file) == "named"
    assert configured_token(named | {"RAY_AUTH_TOKEN": "variable"}, token_file) == "variable"


def test_token_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    missing = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "missing")}

    with pytest.raises(ClusterConfigError, match="missing cannot be read"):
        configured_token(missing, tmp_path / "auth_token")


def test_mode_is_that_of_the_cluster(tmp_path: Path) -> None:
    with head("t") as address:
        assert choose_mode(address, {"RAY_AUTH_TOKEN": "t"}, tmp_path / "none") == "token"
    with head() as address:
        assert choose_mode(address, {"RAY_AUTH_TOKEN": "t"}, tmp_path / "none") == "disabled"


@pytest.mark.parametrize(
    ("token", "environment", "reason"),
    [
        ("t", {}, "needs a token; set RAY_AUTH_TOKEN to what `ray get-auth-token` prints"),
        ("t", {"RAY_AUTH_TOKEN": "other"}, "refuses the token; set RAY_AUTH_TOKEN"),
        ("t", {"RAY_AUTH_MODE": "disabled"}, "needs a token, but RAY_AUTH_MODE is disabled"),
        (None, {"RAY_AUTH_MODE": "token"}, "runs without a token, but RAY_AUTH_MODE is token"),
    ],
)
def test_cluster_that_disagrees_with_the_user_is_an_error(
    token: str | None, environment: dict[str, str], reason: str, tmp_path: Path
) -> None:
    with head(token) as address, pytest.raises(ClusterConfigError, match=reason):
        choose_mode(address, environment, tmp_path / "none")


def test_cluster_that_does_not_answer_has_no_mode(tmp_path: Path) -> None:
    with pytest.raises(NoAnswerError):
        choose_mode(closed_address(), {}, tmp_path / "none")
