"""Errors of file systems and S3 clients as one sentence each, without credentials."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

import botocore.exceptions as aws

from actors.protocol.plain_text import bare
from actors.retries import (
    SERVER_ERRNOS,
    http_client_errors,
    is_changed_object,
    is_transient,
    no_response_errors,
)
from pipeline.errors import DatasetError, OutageError

MESSAGE_CHARS = 300  # of the text of an error of a store
# what to do about errors of a disk
DISK_ADVICE = {
    errno.ENOSPC: "free space on the disk, then repeat the command",
    errno.EDQUOT: "free space or raise the quota, then repeat the command",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "a link leads back to its own folder; remove it",
    errno.EEXIST: "a file has the name of a folder; choose another path",
    errno.ENOTDIR: "a file has the name of a folder; choose another path",
}
# Packages of the file systems of the extras. They are not installed everywhere; their errors are
# no OSErrors: those of httpx are Hugging Face's.
STORE_PACKAGES = frozenset(
    {"adlfs", "azure", "gcsfs", "google", "httpx", "httpx2", "huggingface_hub", "requests"}
)
NO_CREDENTIALS = (aws.NoCredentialsError, aws.PartialCredentialsError)


def client_errors() -> tuple[type[Exception], ...]:
    """Returns what file systems and S3 clients raise."""
    return (OSError, aws.BotoCoreError, HTTPException, *http_client_errors())


@contextmanager
def explained(url: str, action: str) -> Iterator[None]:
    """Raises errors of the block as DatasetError, or OutageError if the error is transient.

    Args:
        url: of the object; credentials in it are not shown.
        action: a verb for the message: "read", "create" …
    """
    shown_url = bare(url)
    try:
        yield
    except FileNotFoundError as error:
        reason = "the bucket does not exist" if _bucket_is_missing(error) else "it does not exist"
        raise DatasetError(f"cannot {action} {shown_url}: {reason}; check the path") from error
    except PermissionError as error:
        reason = bare(error)
        raise DatasetError(
            f"cannot {action} {shown_url}: permission denied ({reason}); check credentials and "
            "access rights"
        ) from error
    except client_errors() as error:
        if is_changed_object(error):
            raise DatasetError(
                f"cannot {action} {shown_url}: it changed since it was listed; start a new run"
            ) from error
        error_class = OutageError if is_transient(error) else DatasetError
        reason = bare(_reason(error))
        raise error_class(f"cannot {action} {shown_url}: {reason}") from error
    except Exception as error:
        if not _is_of_store(error):
            raise
        reason = bare(f"{type(error).__name__}: {error}", MESSAGE_CHARS)
        raise DatasetError(
            f"cannot {action} {shown_url}: {reason}; check the URL, the network and credentials"
        ) from error


def _is_of_store(error: Exception) -> bool:
    """Whether an error is one of the client of a store that an extra brings."""
    package = type(error).__module__.split(".", 1)[0]
    return package in STORE_PACKAGES


def _bucket_is_missing(error: FileNotFoundError) -> bool:
    response: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    code = response.get("Error", {}).get("Code")
    if code == "NoSuchBucket" or "bucket does not exist" in str(error):
        return True
    return "HeadBucket" in str(error.__cause__)


def _reason(error: Exception) -> str:
    if isinstance(error, NO_CREDENTIALS):
        return (
            "no S3 credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a "
            "role"
        )
    name = type(error).__name__
    if isinstance(error, no_response_errors()):
        return (
            f"the endpoint does not answer ({name}: {error}); check the URL (for S3, "
            "AWS_ENDPOINT_URL) and the network, then run it again"
        )
    if isinstance(error, OSError) and error.errno in SERVER_ERRNOS:
        return f"the endpoint is overloaded or broken ({error}); run it again later"
    advice = DISK_ADVICE.get(getattr(error, "errno", None) or 0)
    if advice is not None:
        return f"{name}: {error}; {advice}"
    return f"{name}: {error}"
