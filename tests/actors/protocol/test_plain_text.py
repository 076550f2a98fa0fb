"""Text from outside as messages have it: one line, bounded, without credentials."""

from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.protocol.plain_text import (
    MESSAGE_CHARS,
    VALUE_CHARS,
    bare,
    one_line,
    plain_message,
    quoted,
    redact_credentials,
)

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{SECRET}@host/key",
        f"https://user:{SECRET}/{SECRET}@host/key",
        f"https://user:{SECRET}@{SECRET}@host/key",
        f"https://user:{SECRET}/a@{SECRET}/b@host/key",
        f"https://user:{SECRET}?{SECRET}@host/key",
        f"https://:{SECRET}@host/key",
        f"https://{SECRET}@host:8080/key",
        f"simplecache::https://user:{SECRET}@host/key",
        f"https://host/key?access_token={SECRET}&n=1",
        f"https://host/key?n=1&api_key={SECRET}",
        f"https://host/key?apiKey={SECRET}",
        f"https://host/key?api-key={SECRET}",
        f"https://host/key?subscription-key={SECRET}",
        f"https://host/key?key={SECRET}",
        f"https://host/key?KEY={SECRET}/{SECRET}@{SECRET}",
        f"https://host/key?password={SECRET}",
        f"https://host/key?passwd={SECRET}",
        f"https://host/key?user[password]={SECRET}",
        f"https://host/key?private_token={SECRET}",
        f"https://host/key?client_secret={SECRET}",
        f"https://host/key?sv=2026&sig={SECRET}",
        f"https://host/key?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}",
        f"https://host/key?X-Goog-Signature={SECRET}",
        f"https://host/key?AWSAccessKeyId={SECRET}&Signature={SECRET}",
        f"https://host/key?auth={SECRET}&jwt={SECRET}",
        f"https://host/key#access_token={SECRET}",
        f"https://host/key?n=1;key={SECRET}",
        f"https://host/key?n=1?token={SECRET}",
        f"https://host/key?api%5Fkey={SECRET}&%74oken={SECRET}",
        f"https://host/key?token%5B%5D={SECRET}&token[]={SECRET}",
        f"https://host/key?code={SECRET}&clientId=default",
        f"https://host/key?Policy={SECRET}&Key-Pair-Id={SECRET}",
        f"https://host/key?session={SECRET}&PHPSESSIONID={SECRET}&cookie={SECRET}",
        f"https://host/key?pw={SECRET}&passcode={SECRET}&otp={SECRET}&pin={SECRET}",
        f"https://host/key?ticket={SECRET}&hmac={SECRET}&sign={SECRET}&q-ak={SECRET}",
        f"https://user:a'{SECRET}@host/key",
        f'https://user:a"{SECRET}@host/key',
        f"cannot read ['https://u:{SECRET}@host/a', 'https://host/b?token={SECRET}']",
    ],
)
def test_credentials_of_urls_are_redacted(url: str) -> None:
    assert SECRET not in redact_credentials(url)
    assert redact_credentials(redact_credentials(url)) == redact_credentials(url)
    assert "host" in redact_credentials(url)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b",
        "https://host:8080/a@b",
        "https://host:8080?mail=a@b",
        "https://host/x?n=1&keyword=a&tokens=5",
        "https://host/x?zipcode=1&country_code=de&encode=2&sessions=3&resign=4",
        '{"url":"s3://bucket","mail":"a@b"}',
        "/data/x?n=1",
        "mail user@host",
        "min_tokens: expected at most max_tokens = 5, got 6",
        "",
    ],
)
def test_text_without_credentials_is_unchanged(text: str) -> None:
    assert redact_credentials(text) == text
    assert plain_message(text) == text


def test_redaction_keeps_punctuation_behind_a_value() -> None:
    message = f"'https://host/a?n=1&key={SECRET}': 5 rows"
    assert redact_credentials(message) == "'https://host/a?n=1&key=…': 5 rows"


def is_plain(text: str) -> bool:
    """Whether a text has no character but printable ones and spaces."""
    return all(character.isprintable() or category(character) == "Zs" for character in text)


@given(st.text())
def test_one_line_has_printable_characters_only(text: str) -> None:
    assert is_plain(one_line(text))
    assert one_line(one_line(text)) == one_line(text)


@given(st.text(max_size=50), st.text(max_size=3), st.integers(0, 3000))
def test_messages_are_bounded_lines(message: str, value: str, repeats: int) -> None:
    for text in (bare(value * repeats), quoted(value * repeats)):
        assert is_plain(text)
        assert len(text) <= VALUE_CHARS
    whole = plain_message(f"{message}{value * repeats}")
    assert is_plain(whole)
    assert len(whole) <= MESSAGE_CHARS
    assert plain_message(whole) == whole


def test_quoted_is_repr_of_usual_values() -> None:
    for value in ("it's", 7, 1.5, None, True, [1, "a"], ("a",), {"a": 1}, b"\x00", [[1], []]):
        assert quoted(value) == repr(value)


def test_one_line_keeps_spaces_between_numbers_and_units() -> None:
    assert one_line("12\xa0% of 1\u202f000\u3000x") == "12\xa0% of 1\u202f000\u3000x"


def test_quoted_cuts_long_values() -> None:
    for value in ("x y " * 10**6, ["x"] * 10**6, {n: n for n in range(9999)}, 10**4000, 10**9999):
        assert len(quoted(value)) <= VALUE_CHARS
    assert quoted("x y " * 100).startswith("'x y x y ")
    assert quoted("\x1b[31m\n") == "'\\x1b[31m\\n'"


def test_message_keeps_its_beginning() -> None:
    message = plain_message(f"row 3: {'x' * 5000} {'y z ' * 9999}")
    assert message.startswith(f"row 3: {'x' * (VALUE_CHARS - 1)}… y z ")
    assert message.endswith("…")
