import pytest

from pipeline.storage.redaction import redact_credentials


@pytest.mark.parametrize(
    "url",
    [
        "s3://user:secret@bucket/key",
        "https://secret@host/key",
        "https://host/key?X-Amz-Signature=secret&X-Amz-Date=2026",
        "https://host/key?x-amz-security-token=secret",
        "https://host/key?a=1&X-Goog-Signature=secret",
        "https://host/key?AWSAccessKeyId=secret",
        "https://host/key?awsaccesskeyid=secret",
        "https://host/key?Signature=secret",
        "https://host/key?sv=2026&sig=secret",
        "https://host/key?token=secret",
        "cannot read //secret@host/key: no answer",
    ],
)
def test_credentials_are_removed(url: str) -> None:
    assert "secret" not in redact_credentials(url)


@pytest.mark.parametrize("text", ["s3://bucket/a@b", "/data/x?n=1", "mail user@host", ""])
def test_text_without_credentials_is_unchanged(text: str) -> None:
    assert redact_credentials(text) == text


def test_names_of_removed_parameters_stay() -> None:
    url = "https://host/key?X-Amz-Signature=secret&n=1"
    assert redact_credentials(url) == "https://host/key?X-Amz-Signature=…&n=1"
