import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.synthesis.selection.expressions import ERRORS, Expression

COLUMNS = ("a", "b", "text", "items", "deep", "nothing")
VALUES = {
    "a": 3,
    "b": 0.5,
    "text": "Hello world\nagain",
    "items": [1, 2, 3],
    "deep": {"k": "v"},
    "nothing": None,
}


def holds(source: str) -> bool:
    return Expression(source, COLUMNS)(VALUES)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a == 3", True), ("a + 1 < b", False), ("0 < b < a <= 3", True), ("a % 2 == 1 and a // 2 == 1", True),
        ("'world' in text", True), ("'World' not in text", True), ("a in items or a in [7]", True), ("not a in items", False),
        ("nothing is None", True), ("text is not None", True), ("len(text) > 10", True), ("words(text) == 3", True),
        ("lines(text) == 2", True), ("deep['k'] == 'v' and items[-1] == 3", True), ("upper(text) != text", True),
        ("count(text, 'l') == 3", True), ("startswith(text, 'He') and endswith(text, 'n')", True), ("-a < +b", True),
        ("(a if b > 1 else 7) == 7", True), ("abs(b - 1) == 0.5", True), ("round(b * 3, 1) == 1.5", True),
        ("text + '!' == 'x'", False), ("int('12') + float('0.5') == 12.5", True), ("sum(items) == max(4, 6)", True),
        ("nothing is None or nothing > 3", True), ("False", False), ("strip(' x ') == 'x'", True), ("a in (1, 2)", False),
        ("'\\d' in text", False), ("str(a) == '3'", True), ("min(items) == 1 and lower('A') == 'a'", True),
    ],
)  # fmt: skip
def test_expressions_mean_what_they_mean_in_python(source: str, expected: bool) -> None:
    assert holds(source) is expected
    environment = {
        "words": lambda text: len(text.split()),
        "lines": lambda text: len(text.splitlines()),
    }
    environment |= {
        name: getattr(str, name)
        for name in ("upper", "lower", "strip", "count", "startswith", "endswith")
    }
    assert eval(source.replace("'\\d'", "'\\\\d'"), environment, VALUES) == expected


@pytest.mark.parametrize(
    "source",
    [
        "a", "text", "nothing > 1", "a + text", "text * 3", "items * 2", "text % a", "a / 0", "items[9]", "deep['z']", "len(a)",
        "words(a)", "not a", "a and b", "'x' < a", "round(b, 100)", "a if a else b", "int('x')", "True + 1 == 2", "a in a",
    ],
)  # fmt: skip
def test_values_that_do_not_fit_raise_and_never_decide(source: str) -> None:
    with pytest.raises(ERRORS):
        holds(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a ==", "invalid syntax"),
        ("c == 1", "position 1: no column 'c'; there are a, b"),
        ("a == 1 and texd == 'x'", "position 12: no column 'texd'; did you mean 'text'?"),
        ("text.upper() == 'X'", "position 1: 'text.upper()' is not understood"),
        ("__import__('os').system('true')", "is not understood"),
        ("(lambda: a)()", "is not understood"),
        ("[x for x in items]", "is not understood"),
        ("a ** 99999", "'a ** 99999' is not understood"),
        ("f'{a}' == '3'", "is not understood"),
        ("eval('1')", "position 1: \"eval('1')\" is not understood"),
        ("open('x') == 1", "is not understood"),
        ("items[0:2] == [1]", "is not understood"),
        ("round(b, ndigits=1) == 1", "is not understood"),
        ("(a := 3) == 3", "is not understood"),
        ("a == b'x'", "is not understood"),
        ("a << 3 == 1", "is not understood"),
        ("~a == 1", "is not understood"),
        ("max(*items) == 1", "is not understood"),
        ("{a} == 1", "is not understood"),
        ("(" * 1000 + "a" + ")" * 1000, "--where"),
        ("-" * 1999 + "a", "--where"),
        ("a == '" + "x" * 2000 + "'", "expected at most 2000 characters"),
        ("a == 1\x00", "--where"),
        ("", "--where"),
        ("a == 1; b == 2", "invalid syntax"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(source: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Expression(source, COLUMNS)
    assert message in str(raised.value)


def test_an_expression_knows_what_it_looks_at() -> None:
    assert Expression("a == 1 or len(text) > a", COLUMNS).names == {"a", "text"}


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_refused_and_nothing_else_happens(source: str) -> None:
    try:
        expression = Expression(source, COLUMNS)
    except ConfigError:
        return
    try:
        assert isinstance(expression(VALUES), bool)
    except ERRORS:
        return
