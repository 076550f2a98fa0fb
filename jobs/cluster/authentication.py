"""Chooses how a driver authenticates at a running cluster: with the user's token, or without.

Driver and cluster must agree. A cluster that needs no token gets none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from jobs.cluster.address import ClusterConfigError
from jobs.cluster.probe import accepts

Mode = Literal["token", "disabled"]
AUTH_MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
TOKEN_FILE = Path.home() / ".ray" / "auth_token"


def token_is_configured(environment: Mapping[str, str], token_file: Path = TOKEN_FILE) -> bool:
    """Returns whether the user has a token: in a variable, or in the file that Ray makes."""
    if environment.get(TOKEN) or environment.get(TOKEN_PATH):
        return True
    return token_file.exists()


def configured_token(environment: Mapping[str, str], token_file: Path = TOKEN_FILE) -> str | None:
    """Returns the user's token, from where Ray reads it; None without one.

    Raises:
        ClusterConfigError: the file of the token cannot be read.
    """
    token = environment.get(TOKEN)
    if token:
        return token.strip()

    named_file = environment.get(TOKEN_PATH)
    path = token_file
    if named_file:
        path = Path(named_file)
    elif not token_file.exists():
        return None
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterConfigError(f"the token in {path} cannot be read: {error}") from error


def choose_mode(
    address: str, environment: Mapping[str, str], token_file: Path = TOKEN_FILE
) -> Mode:
    """Returns RAY_AUTH_MODE for a cluster.

    Raises:
        NoAnswerError: no cluster answers at the address.
        ClusterConfigError: the cluster needs a token that the user does not have, or RAY_AUTH_MODE
            says otherwise.
    """
    mode = environment.get(AUTH_MODE)
    if accepts(address):
        if mode == "token":
            raise ClusterConfigError(
                f"the Ray cluster at {address} runs without a token, but RAY_AUTH_MODE is token; "
                "unset it, or start the cluster with a token"
            )
        return "disabled"

    if mode == "disabled":
        raise ClusterConfigError(
            f"the Ray cluster at {address} needs a token, but RAY_AUTH_MODE is disabled; unset it"
        )
    token = configured_token(environment, token_file)
    cure = "set RAY_AUTH_TOKEN to what `ray get-auth-token` prints on the head"
    if token is None:
        raise ClusterConfigError(f"the Ray cluster at {address} needs a token; {cure}")
    if not accepts(address, token):
        raise ClusterConfigError(f"the Ray cluster at {address} refuses the token; {cure}")
    return "token"
