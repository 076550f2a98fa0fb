"""Every exception of the border: a code of its own, and the same after pickling."""

import pickle

import pytest

from actors.protocol import errors
from actors.protocol.errors import (
    ClusterLostError,
    GrokBatchError,
    ModelError,
    ReplicaError,
    RequestError,
)
from actors.protocol.plain_text import MESSAGE_CHARS

# Values of the output column `error_code`, which users filter by.
CODES = {
    "MissingPromptError": "missing_prompt",
    "EmptyPromptError": "empty_prompt",
    "InvalidPromptError": "invalid_prompt",
    "InvalidTokenError": "invalid_token",
    "PromptTooLongError": "prompt_too_long",
    "InvalidParameterError": "invalid_parameter",
    "EngineCrashError": "engine_crash",
}
CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, GrokBatchError)
]


def test_request_errors_have_the_documented_codes() -> None:
    codes = {error.__name__: error.code for error in RequestError.__subclasses__()}
    assert codes == CODES


@pytest.mark.parametrize("error_class", CLASSES)
def test_error_survives_pickling_with_its_message(error_class: type[GrokBatchError]) -> None:
    error = error_class("row 3 of a.parquet: the prompt is null")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is error_class
    assert str(copy) == "row 3 of a.parquet: the prompt is null"
    assert copy.args == error.args


def test_error_takes_exactly_one_argument() -> None:
    with pytest.raises(TypeError):
        ModelError("mesh", "memory")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ModelError()  # type: ignore[call-arg]


@pytest.mark.parametrize("error_class", [ReplicaError, ModelError, ClusterLostError])
def test_run_errors_are_not_request_errors(error_class: type[GrokBatchError]) -> None:
    """A row with such an error must not be written as failed."""
    assert not issubclass(error_class, RequestError)
    assert not hasattr(error_class, "code")


@pytest.mark.parametrize("error_class", CLASSES)
def test_error_message_is_one_bounded_line_without_secrets(
    error_class: type[GrokBatchError],
) -> None:
    hostile = "\x1b[31mred\r\n\x9b2J\u202e\u2028" + "x " * 10**5
    message = str(error_class(f"row 3 of https://u:secret@host/a?key=secret: {hostile}"))
    assert message.startswith("row 3 of https://host/a?key=…: \\x1b[31mred\\r\\n")
    assert message.isprintable()
    assert len(message) <= MESSAGE_CHARS
