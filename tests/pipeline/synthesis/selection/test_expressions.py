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
        ("a == 3", True),
        ("a + 1 < b", False),
        ("0 < b < a <= 3", True),
        ("a % 2 == 1 and a // 2 == 1", True),
        ("'world' in text", True),
        ("'World' not in text", True),
        ("a in items or a in [7]", True),
        ("not a in items", False),
        ("nothing is None", True),
        ("text is not None", True),
        ("len(text) > 10", True),
        ("words(text) == 3", True),
        ("lines(text) == 2", True),
        ("deep['k'] == 'v' and items[-1] == 3", True),
        ("upper(text) != text", True),
        ("count(text, 'l') == 3", True),
        ("startswith(text, 'He') and endswith(text, 'n')", True),
        ("-a < +b", True),
        ("(a if b > 1 else 7) == 7", True),
        ("abs(b - 1) == 0.5", True),
        ("round(b * 3, 1) == 1.5", True),
        ("text + '!' == 'x'", False),
        ("int('12') + float('0.5') == 12.5", True),
        ("sum(items) == max(4, 6)", True),
        ("nothing is None or nothing > 3", True),
        ("False", False),
        ("strip(' x ') == 'x'", True),
        ("a in (1, 2)", False),
        ("'\\d' in text", False),
        ("str(a) == '3'", True),
        ("min(items) == 1 and lower('A') == 'a'", True),
    ],
)
def test_expression_agrees_with_python(source: str, expected: bool) -> None:
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
        "a",
        "text",
        "nothing > 1",
        "a + text",
        "text * 3",
        "items * 2",
        "text % a",
        "a / 0",
        "items[9]",
        "deep['z']",
        "len(a)",
        "words(a)",
        "not a",
        "a and b",
        "'x' < a",
        "round(b, 100)",
        "a if a else b",
        "int('x')",
        "True + 1 == 2",
        "a in a",
    ],
)
def test_expression_raises_for_values_of_wrong_type(source: str) -> None:
    with pytest.raises(ERRORS):
        holds(source)


REFUSED = [
    ("a ==", "unexpected 'end of template'"),
    ("c == 1", "no column 'c'; there are a, b, deep, items, nothing, text"),
    ("a == 1 and texd == 'x'", "no column 'texd'; did you mean 'text'?"),
    ("text.upper() == 'X'", "only these can be called: abs, count, endswith"),
    ("deep['k'].upper() == 'X'", "only these can be called"),
    ("__import__('os').system('true')", "only these can be called"),
    ("(lambda: a)()", "--where"),
    ("[x for x in items]", "--where"),
    ("f'{a}' == '3'", "--where"),
    ("eval('1')", "only these can be called"),
    ("open('x') == 1", "only these can be called"),
    ("range(9) == 1", "only these can be called"),
    ("round(b, ndigits=1) == 1", "arguments of functions are given by position"),
    ("max(*items) == 1", "arguments of functions are given by position"),
    ("(a := 3) == 3", "--where"),
    ("a == b'x'", "unexpected 'x' after the expression"),
    ("a << 3 == 1", "--where"),
    ("~a == 1", "--where"),
    ("{'a': a} == 1", "dict is not supported"),
    ("a if b == 1", "if needs else"),
    # Jinja reads the word after a test as its argument
    ("nothing is None if a == 1 else a == 2", "unexpected 'a' after the expression"),
    ("text | center(1000000) == 'x'", "No filter named 'center'"),
    ("text | random == 'x'", "No filter named 'random'"),
    ("text is palindrome", "No test named 'palindrome'"),
    ("(" * 900 + "a" + ")" * 900, "the expression is nested too deeply"),
    ("-" * 1999 + "a", "--where"),
    ("a == '" + "x" * 2000 + "'", "expected at most 2000 characters"),
    ("a == 1\x00", "--where"),
    ("", "--where"),
    ("a == 1; b == 2", "unexpected ';' after the expression"),
    ("a == 1 }} {{ b", "--where"),
]


@pytest.mark.parametrize(("source", "message"), REFUSED)
def test_expression_refuses_invalid_source(source: str, message: str) -> None:
    with pytest.raises(ConfigError, match="--where") as raised:
        Expression(source, COLUMNS)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "source",
    [
        "text | length > 10",
        "text | upper | trim | wordcount == 3",
        "deep.k == 'v'",
        "deep.z is undefined",
        "deep.z | default('none') == 'none'",
        "items[0:2] == [1, 2]",
        "items | sum == 6 and items | first == 1",
        "a ** 2 == 9",
        "a is odd and a is number",
        "text ~ '!' != text",
        "nothing is none",
        "'a' 'b' == 'ab'",
    ],
)
def test_expression_accepts_the_language_of_jinja(source: str) -> None:
    assert holds(source)


@pytest.mark.parametrize(
    "source",
    [
        "deep.__class__ is undefined",
        "text['__class__'] is undefined",
        "text['upper'] is undefined",
        "deep.keys is undefined",
    ],
)
def test_expression_cannot_reach_attributes(source: str) -> None:
    assert holds(source)


@pytest.mark.parametrize(
    "source",
    [
        "deep.z",
        "deep.z is none",
        "deep.z is not None",
        "deep.z + 1 == 1",
        "-deep.z == 1",
        "not deep.z",
        "deep.z == 1",
        "10 ** 65 == 1",
        "((9 ** 64) ** 64) ** 64 == 1",
        "2 ** nothing == 1",
        "'%s' % text == text",
        "-(a == 3) == -1",
        "+(a == 3) == 1",
        "round(b, -100) == 0",
    ],
)
def test_expression_raises_for_undefined_and_unbounded_values(source: str) -> None:
    with pytest.raises(ERRORS):
        holds(source)


def test_expression_reads_columns_named_like_functions_and_variables() -> None:
    columns = ("sum", "len", "self", "row", "true_answer")
    values = {"sum": 5, "len": 3, "self": 1, "row": 2, "true_answer": 5}
    expression = Expression("sum([len, row]) == sum and self == 1 and sum == true_answer", columns)
    assert expression(values)
    assert expression.names == set(columns)


OPERATORS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=3, max_size=5),
    st.lists(OPERATORS, min_size=4, max_size=4),
)
def test_expression_evaluates_chained_comparisons_pairwise(
    numbers: list[int], operators: list[str]
) -> None:
    names = [f"x{index}" for index in range(len(numbers))]
    source = names[0]
    for name, operator in zip(names[1:], operators, strict=False):
        source += f" {operator} {name}"
    values = dict(zip(names, numbers, strict=True))
    assert Expression(source, names)(values) is eval(source, {}, values)


NUMBERS = st.sampled_from(["a", "b", "1", "2.5", "len(text)", "items[0]", "abs(-2)"])
COMPARISONS = st.builds("{} {} {}".format, NUMBERS, OPERATORS, NUMBERS)
CONDITIONS = st.recursive(
    COMPARISONS | st.sampled_from(["True", "False", "(nothing is None)", "'o' in text"]),
    lambda conditions: (
        st.builds("({} and {})".format, conditions, conditions)
        | st.builds("({} or {})".format, conditions, conditions)
        | st.builds("not {}".format, conditions)
        | st.builds("({} if {} else {})".format, conditions, conditions, conditions)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(CONDITIONS)
def test_expression_agrees_with_python_on_random_conditions(source: str) -> None:
    assert holds(source) is eval(source, {}, VALUES)


def test_expression_lists_its_columns() -> None:
    assert Expression("a == 1 or len(text) > a", COLUMNS).names == {"a", "text"}


@settings(deadline=None)
@given(st.text(max_size=60))
def test_expression_accepts_or_refuses_any_text(source: str) -> None:
    try:
        expression = Expression(source, COLUMNS)
    except ConfigError:
        return
    try:
        assert isinstance(expression(VALUES), bool)
    except ERRORS:
        return
