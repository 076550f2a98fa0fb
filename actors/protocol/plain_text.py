"""Text from outside as messages have it: one line, bounded, without credentials.

Names, values and other libraries' errors come from data sets and servers. A message has no control
character of theirs, at most `VALUE_CHARS` characters of a value, and no secret of a URL. Standard
library only.
"""

import re
import reprlib
import unicodedata
from urllib.parse import unquote

VALUE_CHARS = 300  # of any value in a message
MESSAGE_CHARS = 2000  # of a message
ELLIPSIS = "…"
_SPACE = "Zs"  # category of spaces: also those of the reports between a number and its unit
_READ_CHARS = 8 * MESSAGE_CHARS  # of a text, however long: the rest would be cut anyway

# Quotes end a URL in a message; white space ends it everywhere.
_URL = r"[^\s\"'<>]"
# In a secret, a quote is a character like others unless it ends an item of a list or an object.
_SECRET = rf"(?:{_URL}|[\"'](?![,:)\]}}\s]))"
# `//user:secret@`: the secret may have `/` and `@`, so it ends at the last `@` of the URL. A number
# behind the colon is a port.
_USER_AND_SECRET = re.compile(rf"//(?![^/@\s]*:\d{{1,5}}(?:[/?#\s]|$))[^/@:\s\"'<>]*:{_SECRET}*@")
_USER = re.compile(r"//[^/?#\s\"'<>]+@")
# Names of parameters with a secret: those of S3, Azure (`code`, `sig`), Google and CloudFront
# (`Policy`) among them.
_SECRET_NAME = re.compile(
    r"(?i)x-amz-[\w-]+|x-goog-[\w-]+|key-pair-id"
    r"|[\w.\-\[\]]*(?:token|secret|passwd|password|passphrase|passcode|pwd|signature|credentials?"
    r"|api[_-]?key|session|cookie)(?:[_-]?id)?(?:\[\])?\]?"
    r"|[\w.-]*key(?:[_-]?id)?"
    r"|(?:[\w.-]*[_-])?(?:sig|sign|hmac|auth|authorization|pass|pw|pin|otp|jwt|sas|bearer|ticket|ak)"
    r"|access|code|policy"
)
_PARAMETER_NAME = re.compile(r"[?&;#]([\w.%\-\[\]]+)=")
_PARAMETER_VALUE = re.compile(r"[^&\s]*")
_PUNCTUATION = ":;,.\"')]}>"  # behind a value: of the message around it
_LONG_RUN = re.compile(rf"\S{{{VALUE_CHARS + 1},}}")


def redact_credentials(text: str) -> str:
    """Returns `text` without the user, password, key or signature of any URL in it."""
    if "//" in text:
        text = _USER_AND_SECRET.sub("//", text)
        text = _USER.sub("//", text)
    if "=" in text:
        text = _redact_parameters(text)
    return text


def _redact_parameters(text: str) -> str:
    """Returns `text` without the values of parameters that have the name of a secret."""
    pieces: list[str] = []
    end = 0
    for name in _PARAMETER_NAME.finditer(text):
        is_within_secret = name.start() < end
        if is_within_secret or _SECRET_NAME.fullmatch(unquote(name[1])) is None:
            continue
        value = _PARAMETER_VALUE.match(text, name.end())
        if value is None:
            continue
        pieces += [text[end : name.end()], ELLIPSIS]
        end = name.end() + len(value[0].rstrip(_PUNCTUATION))
    return "".join([*pieces, text[end:]])


def one_line(text: str) -> str:
    r"""Returns `text` with control characters, line breaks and the like as escapes: `\x1b`."""
    if text.isprintable():
        return text
    characters: list[str] = []
    for character in text:
        if character.isprintable() or unicodedata.category(character) == _SPACE:
            characters.append(character)
        else:
            characters.append(character.encode("unicode_escape").decode("ascii"))
    return "".join(characters)


def shorten(text: str, limit: int = VALUE_CHARS) -> str:
    """Returns `text`, or its beginning with an ellipsis, of at most `limit` characters."""
    if len(text) <= limit:
        return text
    return text[: limit - 1] + ELLIPSIS


def bare(value: object, limit: int = VALUE_CHARS) -> str:
    """Returns a value as a message has it without quotes: a name, a path, another error."""
    text = str(value)[:_READ_CHARS]
    return shorten(one_line(redact_credentials(text)), limit)


def quoted(value: object) -> str:
    """Returns a value as a message has it in quotes, like `repr`; lists and maps are cut."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python refuses to write integers of more than 4,300 digits
        text = f"{type(value).__name__} of more than 4,300 digits"
    return bare(text)


def plain_message(text: str) -> str:
    """Returns a message as one bounded line without credentials.

    Values are bounded where the message is made, by `quoted` and `bare`. This bounds unbroken runs
    of characters and the message, for errors of other libraries.
    """
    text = one_line(redact_credentials(text[:_READ_CHARS]))
    text = _LONG_RUN.sub(lambda match: shorten(match[0]), text)
    return shorten(text, MESSAGE_CHARS)


def _bounded_repr() -> reprlib.Repr:
    bounded = reprlib.Repr()
    bounded.maxstring = 2 * VALUE_CHARS  # shows both ends; `bare` cuts the second
    bounded.maxother = 2 * VALUE_CHARS
    bounded.maxlong = VALUE_CHARS
    for name in ("maxlist", "maxtuple", "maxarray", "maxdict", "maxset", "maxdeque"):
        setattr(bounded, name, VALUE_CHARS // 3)
    return bounded


_REPR = _bounded_repr()


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold the text: JSON may have lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
