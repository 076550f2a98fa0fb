import errno

import botocore.exceptions as aws
import pytest

from pipeline.errors import DatasetError, OutageError
from pipeline.storage.errors import explained

SIGNED = "https://user:secret@host/key?X-Amz-Signature=secret"


def explain(error: Exception) -> DatasetError:
    with pytest.raises(DatasetError) as raised, explained(SIGNED, "read"):
        raise error
    return raised.value


@pytest.mark.parametrize(
    ("error", "expected", "error_class"),
    [
        (FileNotFoundError(SIGNED), "it does not exist; check the path", DatasetError),
        (FileNotFoundError("The specified bucket does not exist"), "the bucket", DatasetError),
        (PermissionError(13, SIGNED), "permission denied", DatasetError),
        (OSError(errno.EBUSY, SIGNED), "the endpoint is overloaded or broken", OutageError),
        (ConnectionResetError(104, SIGNED), "the endpoint does not answer", OutageError),
        (aws.EndpointConnectionError(endpoint_url=SIGNED), "does not answer", OutageError),
        (aws.NoCredentialsError(), "no S3 credentials were found", DatasetError),
        (OSError(errno.ENOSPC, SIGNED), "free space on the disk, then repeat", DatasetError),
        (OSError(errno.EROFS, SIGNED), "choose a folder on a disk that can be", DatasetError),
        (FileExistsError(errno.EEXIST, SIGNED), "a file has the name of a folder", DatasetError),
        (OSError(errno.ELOOP, SIGNED), "a link leads back to its own folder", DatasetError),
        (OSError(errno.EIO, SIGNED), "OSError", DatasetError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_client_error_becomes_one_sentence_without_credentials(
    error: Exception, expected: str, error_class: type[DatasetError]
) -> None:
    explanation = explain(error)
    assert type(explanation) is error_class
    assert str(explanation).startswith("cannot read https://host/key")
    assert expected in str(explanation)
    assert "secret" not in str(explanation)
    assert explanation.__cause__ is error


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), explained(SIGNED, "read"):
        raise ZeroDivisionError


@pytest.mark.parametrize("package", ["azure.core.exceptions", "httpx2", "gcsfs.retry"])
def test_errors_of_clients_of_extras_are_a_sentence(package: str) -> None:
    error_class = type("ServiceRequestError", (Exception,), {"__module__": package})
    message = str(explain(error_class(SIGNED)))
    assert "ServiceRequestError" in message
    assert "check the URL, the network and credentials" in message
    assert "secret" not in message


def test_errors_of_the_program_are_not_explained() -> None:
    with pytest.raises(KeyError), explained(SIGNED, "read"):
        raise KeyError("mistake")
