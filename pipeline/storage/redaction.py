"""Text → the same text without passwords, keys and signatures in the URLs that it quotes.

Standard library only.
"""

import re

_USER = re.compile(r"//[^/@\s]+@")
_QUERY = re.compile(
    r"(?i)([?&;](?:x-amz-\w+|x-goog-\w+|awsaccesskeyid|signature|sig|token)(?:-\w+)*)=[^&\s]*"
)


def redact_credentials(text: str) -> str:
    """Returns `text` without the user, password or signature in any URL that it quotes."""
    return _QUERY.sub(r"\1=…", _USER.sub("//", text))
