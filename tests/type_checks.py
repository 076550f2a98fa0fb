"""Checks of the types of arguments while tests run, beside those of arrays (`pyproject.toml`)."""

from beartype import BeartypeConf
from beartype.claw import beartype_packages

# Parts of the engine that compute with no array: jaxtyping would open a scope for the names of
# dimensions at every call, which takes longer than most of these functions.
WITHOUT_ARRAYS = ("actors.engine.scheduling", "actors.engine.simulation")


def check_types() -> None:
    """Makes imports of these modules check arguments and results at every call."""
    beartype_packages(WITHOUT_ARRAYS, conf=BeartypeConf(claw_is_pep526=False))
