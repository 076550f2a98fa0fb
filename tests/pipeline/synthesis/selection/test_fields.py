import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.synthesis.rejections import Rejection
from pipeline.synthesis.selection.fields import FieldParser, first_object, read_fields
from pipeline.synthesis.selection.patterns import FieldPattern, Pattern


def by_regex(pattern: str, fields: dict[str, object], *texts: str | None) -> list[Any]:
    parser = FieldParser(read_fields(fields), FieldPattern(pattern, "--parse-regex"))
    return parser.parse(pa.chunked_array([pa.array(texts, pa.string())]))


def by_json(fields: dict[str, object], *texts: str | None) -> list[Any]:
    return FieldParser(read_fields(fields), None).parse(
        pa.chunked_array([pa.array(texts, pa.string())])
    )


@pytest.mark.parametrize(
    ("pattern", "fields", "text", "expected"),
    [
        (r"(?P<answer>\d+)", {}, "it is 42.", {"answer": "42"}),
        (r"(?P<answer>\d+)", {"answer": "int64"}, "it is 42.", {"answer": 42}),
        (
            r"(?s)^(?P<q>.*)\nA:(?P<a>.*)$",
            {"a": "float64"},
            "why?\nso\nA: -1.5e2 ",
            {"q": "why?\nso", "a": -150.0},
        ),
        (r"(?P<yes>\w+)", {"yes": "bool"}, "True!", {"yes": True}),
        (
            r"(?P<a>\d+)?(?P<b>[a-z]+)?",
            {"a": "int64?", "b": "string?"},
            "xy",
            {"a": None, "b": "xy"},
        ),
        (r"(?P<n>.+)", {"n": "int64"}, "9223372036854775807", {"n": 2**63 - 1}),
        (r"(?P<n>.+)", {"n": "int64"}, "-9223372036854775808", {"n": -(2**63)}),
        (r"(?P<n>.+)", {"n": "string"}, "日本", {"n": "日本"}),
    ],
)
def test_field_parser_reads_groups_of_a_pattern(
    pattern: str, fields: dict[str, object], text: str, expected: dict[str, object]
) -> None:
    assert by_regex(pattern, fields, text) == [expected]


@pytest.mark.parametrize(
    ("pattern", "fields", "text", "reason"),
    [
        (r"(?P<answer>\d+)", {}, "none", "no_match"),
        (r"(?P<answer>\d+)", {}, None, "no_match"),
        (r"(?P<a>\d+)?x", {"a": "int64"}, "x", "missing: a"),
        (r"(?P<n>.+)", {"n": "int64"}, "9223372036854775808", "not int64: n"),
        (r"(?P<n>.+)", {"n": "int64"}, "1_000", "not int64: n"),
        (r"(?P<n>.+)", {"n": "int64"}, "٣", "not int64: n"),
        (r"(?P<n>.+)", {"n": "int64"}, "1.5", "not int64: n"),
        (r"(?P<n>.+)", {"n": "float64"}, "1,5", "not float64: n"),
        (r"(?P<n>.+)", {"n": "float64"}, "nan", "not float64: n"),
        (r"(?P<n>.+)", {"n": "float64"}, "1e999", "not float64: n"),
        (r"(?P<n>.+)", {"n": "bool"}, "yes", "not bool: n"),
    ],
)
def test_field_parser_rejects_text_without_fields(
    pattern: str, fields: dict[str, object], text: str | None, reason: str
) -> None:
    (found,) = by_regex(pattern, fields, text)
    assert isinstance(found, Rejection)
    assert (found.stage, found.reason) == ("parse", reason)


OBJECT = {
    "q": "why?",
    "n": 3,
    "x": 0.5,
    "ok": True,
    "tags": ["a"],
    "deep": {"b": [1], "a": None},
    "none": None,
}
FIELDS: dict[str, object] = {
    "q": "string",
    "n": "int64",
    "x": "float64",
    "ok": "bool",
    "tags": "list[string]",
    "deep": "json",
    "none": "string?",
    "absent": "int64?",
}
PARSED = {**OBJECT, "deep": '{"a": null, "b": [1]}', "absent": None}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(OBJECT),
        f"Here it is:\n```json\n{json.dumps(OBJECT, indent=2)}\n```\nI hope {{this}} helps.",
        f"{{not json}} {{ {json.dumps(OBJECT)}",
        f"[1, 2] {json.dumps(OBJECT)}{json.dumps({'q': 'another'})}",
    ],
)
def test_field_parser_reads_first_json_object(text: str) -> None:
    assert by_json(FIELDS, text) == [PARSED]


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("no object", "string", "no_json_object"),
        ('{"v": 1', "int64", "no_json_object"),
        ("[1]", "int64", "no_json_object"),
        ("{}", "int64", "missing: v"),
        ('{"v": null}', "int64", "missing: v"),
        ('{"v": "1"}', "int64", "not int64: v"),
        ('{"v": true}', "int64", "not int64: v"),
        ('{"v": 1.5}', "int64", "not int64: v"),
        ('{"v": 9223372036854775808}', "int64", "not int64: v"),
        ('{"v": 1e400}', "float64", "not float64: v"),
        ('{"v": NaN}', "float64", "no_json_object"),
        ('{"v": 1}', "bool", "not bool: v"),
        ('{"v": ["a", 1]}', "list[string]", "not list[string]: v"),
        ('{"v": "a"}', "list[string]", "not list[string]: v"),
        ('{"v": "\\ud800"}', "string", "not string: v"),
        ('{"v": ["\\ud800"]}', "json", "not json: v"),
        ('{"v": ' + "[" * 5000 + "]" * 5000 + "}", "json", "no_json_object"),
        ('{"v": ' + "9" * 5000 + "}", "int64", "no_json_object"),
    ],
)
def test_field_parser_rejects_json_of_other_types(text: str, kind: str, reason: str) -> None:
    (found,) = by_json({"v": kind}, text)
    assert isinstance(found, Rejection)
    assert found.reason == reason


def test_field_parser_reads_integral_reals_as_integers() -> None:
    assert by_json({"v": "int64"}, '{"v": 3.0}', '{"v": -2e3}') == [{"v": 3}, {"v": -2000}]
    assert by_json({"v": "float64"}, '{"v": 3}') == [{"v": 3.0}]


def test_field_parser_adds_typed_columns_with_nulls() -> None:
    parser = FieldParser(read_fields(FIELDS), None)
    result = parser(pa.table({"completion": [json.dumps(OBJECT), "nothing"]}))
    assert result.passed.tolist() == [True, False]
    table = result.table.drop_columns(["completion"])
    assert table.to_pylist() == [PARSED, dict.fromkeys(FIELDS)]
    assert table.schema.field("tags").type == pa.list_(pa.string())
    assert table.schema.field("deep").type == pa.string()


@pytest.mark.parametrize(
    ("pattern", "fields", "message"),
    [
        (r"\d+", {}, "expected at least one named group"),
        (r"(\d+)(?P<a>x)", {}, "expected named groups only"),
        (r"(?P<a>x", {}, "missing ): (?P<a>x (position 0)"),
        (r"(?P<a>x)", {"b": "string"}, "--fields: b: --parse-regex has no such group, it has a"),
        (
            r"(?P<a>x)",
            {"a": "list[string]"},
            "a group of --parse-regex is one of string, int64, float64, bool",
        ),
        (r"(?P<a>x)", {"a": "integer"}, "--fields: a: expected one of string"),
        (r"(?P<a>x)", {"a": 3}, "got 3"),
        (r"(?P<a>x)(?=y)", {}, "RE2 has no look-around and no back references (position 8: '(?=')"),
        (r"(?P<a>x)\1", {}, "RE2 has no look-around and no back references (position 8"),
        (r"(?P<a>[z-a])", {}, "invalid character class range: z-a (position 7)"),
        (r"*(?P<a>x)", {}, "no argument for repetition operator: * (position 0)"),
    ],
)
def test_field_parser_refuses_invalid_patterns_and_fields(
    pattern: str, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        by_regex(pattern, fields, "x")
    assert message in str(raised.value)


def test_field_parser_refuses_json_without_fields() -> None:
    with pytest.raises(ConfigError, match="--parse-json: name the keys"):
        by_json({}, "{}")


@pytest.mark.parametrize("text", ["{" * 200_000, '{"a":' * 50_000, '{"' + "\\" * 100_000])
def test_parsing_and_matching_take_bounded_time(text: str) -> None:
    assert first_object(text) is None
    assert Pattern("(a+)+$", "--must-match").matches(pa.array(["a" * 100_000 + "b"])).tolist() == [
        False
    ]


VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=3)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=4), st.text())
def test_first_object_ignores_surrounding_text(found: dict[str, object], around: str) -> None:
    around = around.replace("{", "(")
    assert first_object(around + json.dumps(found) + around) == found


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_field_parser_handles_any_completion(text: str) -> None:
    completions = pa.table({"completion": [text, json.dumps({"v": text})]})
    expected = {"string": text, "json": json.dumps(text, ensure_ascii=False)}
    for type_name, value in expected.items():
        parser = FieldParser(read_fields({"v": type_name}), None)
        assert parser(completions).table["v"].to_pylist()[1] == value
