"""Removal of passwords, keys and signatures from the URLs in a text. Standard library only."""

import re

_USER = re.compile(r"//[^/@\s]+@")
_QUERY = re.compile(
    r"(?i)([?&;](?:x-amz-\w+|x-goog-\w+|awsaccesskeyid|signature|sig|token)(?:-\w+)*)=[^&\s]*"
)


def redact_credentials(text: str) -> str:
    """Returns `text` without the user, password or signature of any URL in it."""
    without_users = _USER.sub("//", text)
    return _QUERY.sub(r"\1=…", without_users)
