import pickle

import pytest

from actors.protocol.errors import GrokBatchError
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from pipeline import errors

CLASSES = (
    errors.DatasetError,
    errors.OutageError,
    errors.ConfigError,
    errors.InterruptedRunError,
    errors.ErrorBudgetError,
    errors.CommitError,
)


@pytest.mark.parametrize("error_class", CLASSES)
def test_errors_keep_class_and_message_when_pickled(error_class: type[GrokBatchError]) -> None:
    error = pickle.loads(pickle.dumps(error_class("row 3 of a.parquet")))
    assert type(error) is error_class
    assert str(error) == "row 3 of a.parquet"


def test_outage_is_handled_as_a_dataset_error() -> None:
    assert issubclass(errors.OutageError, errors.DatasetError)
    for error_class in set(CLASSES) - {errors.OutageError}:
        assert error_class.__bases__ == (GrokBatchError,)


@pytest.mark.parametrize(
    ("error_class", "exit_code"),
    [
        (errors.ConfigError, ExitCode.BAD_ARGUMENTS),
        (errors.InterruptedRunError, ExitCode.INTERRUPTED),
        (errors.DatasetError, ExitCode.FAILED),
        (errors.CommitError, ExitCode.FAILED),
    ],
)
def test_errors_have_exit_codes(error_class: type[GrokBatchError], exit_code: ExitCode) -> None:
    def fail() -> int:
        raise error_class("reason")

    assert run_command(fail) == exit_code
