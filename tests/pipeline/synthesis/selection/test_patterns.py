import re

import pyarrow as pa
import pytest

from pipeline.errors import ConfigError
from pipeline.synthesis.selection.patterns import FieldPattern, Pattern


def test_pattern_does_not_match_nulls() -> None:
    texts = pa.array(["a1", None, "b"])
    assert Pattern(r"\d", "--must-match").matches(texts).tolist() == [True, False, False]


def test_pattern_matches_chunked_columns_anywhere_in_the_text() -> None:
    texts = pa.chunked_array([["xay"], ["A", "b"]])
    assert Pattern("(?i)a", "--must-match").matches(texts).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a(?=b)", "no look-around and no back references (position 1: '(?=')"),
        ("a(?<!b)", "no look-around and no back references (position 1: '(?<!')"),
        (r"(a)\1", r"no look-around and no back references (position 3: '\\1')"),
        ("ab[c", "(position 2)"),
        ("ab(c", "(position 2)"),
    ],
)
def test_invalid_pattern_is_reported_with_its_position(source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        Pattern(source, "--must-match")
    assert str(raised.value).startswith(f"--must-match: {source!r}: ")


def test_field_pattern_reads_names_of_groups_in_order() -> None:
    pattern = FieldPattern("(?P<b>.)(?:x)(?P<a>.)", "--parse-regex")
    assert pattern.groups == ("b", "a")


def test_field_pattern_returns_groups_of_the_first_match() -> None:
    pattern = FieldPattern(r"(?P<sign>-)?(?P<value>\d+)", "--parse-regex")
    assert pattern.fields(pa.array(["x-1 2", "3", "x", None])) == [
        {"sign": "-", "value": "1"},
        {"sign": "", "value": "3"},
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("(?P<a>.)(.)", "expected named groups only"),
        ("(?:.)", "expected at least one named group"),
        ("(?P<a>.)|(?P<b>x)(?P<a>.)", "expected each group name once, got 'a' twice or more"),
        ("(?P<a>.", "(position 0)"),
    ],
)
def test_field_pattern_requires_named_groups(source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        FieldPattern(source, "--parse-regex")
