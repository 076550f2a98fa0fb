import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.synthesis.prompts.templates import PromptTemplate, TemplateSpec
from pipeline.synthesis.rejections import Rejection
from pipeline.templates.row_template import MAX_TEXT_CHARS

ROW = {
    "a": 3,
    "name": "Ana",
    "tags": ["x", "y"],
    "deep": {"k": 1},
    "nothing": None,
    "my column": "m",
    "code": "{{ a }}{% x %}",
}
SHOTS = ({"q": "1+1", "a": 2}, {"q": "2+2", "a": 4})


def render(text: str, row: dict[str, object] | None = None) -> str | Rejection:
    return PromptTemplate(TemplateSpec("t", text)).render(ROW if row is None else row, SHOTS)


def reason(text: str, row: dict[str, object] | None = None) -> str:
    found = render(text, row)
    assert isinstance(found, Rejection), found
    assert found.stage == "template"
    return found.reason


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("{{ a }} + {{ a }} =", "3 + 3 ="),
        # one line break at the end goes, as everywhere in Jinja
        ("Q: {{ name }}?\nA:\n", "Q: Ana?\nA:"),
        (
            "{% for shot in shots %}\n{{ shot.q }} = {{ shot.a }}\n{% endfor %}\n{{ a }}",
            "1+1 = 2\n2+2 = 4\n3",
        ),
        ('{{ row["my column"] }}{{ row.a }}', "m3"),
        ("{{ nothing or 'none' }}{% if nothing %}!{% endif %}", "none"),
        (
            "{{ tags | join(', ') }} {{ deep.k }} {{ name.upper() }} {{ '%03d' | format(a) }}",
            "x, y 1 ANA 003",
        ),
        ("{{ code }}", "{{ a }}{% x %}"),  # text of a row is no template
        ("{{ name }} & <b>", "Ana & <b>"),  # a prompt is no HTML
        ("{% set n = a * 2 %}{{ n ** 2 }}{{ range(3) | list }}", "36[0, 1, 2]"),
    ],
)
def test_template_renders_row(text: str, prompt: str) -> None:
    assert render(text) == prompt


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{ nothing }}", "null_value"),
        ("{{ deep.z }}", "undefined_value"),
        ("{{ tags[5] }}", "undefined_value"),
        ("{{ a + name }}", "template_error"),
        ("{{ a / 0 }}", "template_error"),
        ("  \n {{ '' }}", "empty_prompt"),
        ("{{ name.__class__.__mro__ }}", "template_error"),
        ("{{ ''.__class__ }}", "template_error"),
        ("{{ tags.append('z') }}", "template_error"),
        ("{{ deep.update({'z': 1}) }}", "template_error"),
        ("{{ name * 100000000 }}", "template_error"),
        ("{{ 10 ** 100000 }}", "template_error"),
        ("{{ range(100000000) | list }}", "template_error"),
        ("{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}", "prompt_too_long"),
        ("{{ '{0.__class__}'.format(a) }}", "template_error"),
    ],
)
def test_template_rejects_failing_row_and_leaves_it_unchanged(text: str, why: str) -> None:
    before = repr(ROW)
    assert reason(text) == why
    assert repr(ROW) == before


def test_template_names_null_columns() -> None:
    found = render("{{ name }}{{ nothing }}")
    assert isinstance(found, Rejection)
    assert found.detail == "null, of the columns that it uses: nothing"


def test_template_rejects_lone_surrogate() -> None:
    assert reason("{{ s }}", {"s": "\ud800"}) == "invalid_text"


def test_template_accepts_prompt_of_maximal_length() -> None:
    assert len(str(render("{{ s }}", {"s": "x" * MAX_TEXT_CHARS}))) == MAX_TEXT_CHARS
    assert reason("{{ s }}", {"s": "x" * (MAX_TEXT_CHARS + 1)}) == "prompt_too_long"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n{{ b", "t: line 2: unexpected end of template"),
        ("{% if x %}", "t: line 1: Unexpected end of template"),
        ("{{ x | shout }}", "line 1: No filter named 'shout'"),
        ("{{ [1, 2] | random }}", "No filter named 'random'"),
        ("{% include 'x' %}", "include, import and extends are not available"),
        ("{% extends base %}", "include, import and extends are not available"),
    ],
)
def test_template_refuses_invalid_syntax_with_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"--templates: t") as raised:
        PromptTemplate(TemplateSpec("t", text))
    assert message in str(raised.value)


def test_template_check_refuses_unknown_names() -> None:
    template = PromptTemplate(TemplateSpec("t", "{{ nam }} {{ lipsum }}"))
    with pytest.raises(ConfigError, match="no column 'lipsum'; there are name"):
        template.check(["name"], shots=False)
    with pytest.raises(ConfigError, match=r"no column 'nam'; did you mean 'name'\?"):
        template.check(["name", "lipsum"], shots=False)
    with pytest.raises(ConfigError, match="uses 'shots', but --shots is not given"):
        PromptTemplate(TemplateSpec("t", "{{ shots }}")).check(["a"], shots=False)
    PromptTemplate(
        TemplateSpec("t", "{{ row.b }}{% for s in shots %}{{ s }}{{ loop.index }}{% endfor %}")
    ).check([], shots=True)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_template_spec_refuses_invalid_weight(weight: float) -> None:
    with pytest.raises(ConfigError, match="weight: expected a number above 0"):
        TemplateSpec("t", "x", weight)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(list(string.ascii_lowercase)),
        st.text() | st.none() | st.integers(),
        min_size=1,
    )
)
def test_template_renders_any_value_literally(row: dict[str, object]) -> None:
    name = next(iter(row))
    found = PromptTemplate(TemplateSpec("t", f"<{{{{ {name} }}}}>")).render(row, ())
    if isinstance(found, Rejection):
        assert row[name] is None or found.reason == "invalid_text"
    else:
        assert found == f"<{row[name]}>"


BOMBS = {
    "doubling": "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = SUM %}"
    "{% endfor %}{{ ns.s | length }}",
    "nested loops": "{% for i in range(100000) %}{% for j in range(100000) %}"
    "{% endfor %}{% endfor %}",
    "recursive macro": "{% macro m(n) %}{% if n %}{% set a = m(n - 1) %}{% set b = m(n - 1) %}"
    "{% endif %}{% endmacro %}{{ m(40) }}x",
    "nested lists": "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}"
    "{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
    "growing macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% else %}"
    "{{ 'x' * 100000 }}{% endif %}{% endmacro %}{{ m(12) | length }}",
}
EXPRESSIONS = (
    "s | center(10 ** 10)",
    "s | indent(10 ** 10)",
    "s | batch(10 ** 10, 0) | list",
    "s | batch(linecount=10 ** 10, fill_with=0) | list",
    "s | slice(10 ** 10) | list",
    "s | replace('', 'x' * 100000) | replace('', 'x' * 100000)",
    "s | wordwrap(1, true, 'x' * 1000000)",
    "'%10000000000d' % 1",
    "'%*d' % (10000000000, 1)",
    "'%.10000000000f' % 1.0",
    "'%10000000000d' | format(1)",
    "'{:10000000000}'.format(1)",
    "'{:{}}'.format(1, 10000000000)",
    "s.ljust(10 ** 10)",
    "s.rjust(10 ** 10)",
    "s.center(10 ** 10)",
    "s.zfill(10 ** 10)",
    "('\t' * 100000).expandtabs(10 ** 9)",
    "s.replace('a', 'x' * 1000000).replace('x', 'y' * 1000000)",
    "s.translate({97: 'x' * 1000000})",
    "('x' * 1000000).join(range(100000) | map('string'))",
    "range(100000) | join('x' * 1000000)",
    "('x' * 1000000,) * 100000 | join",
    "(7).to_bytes(10 ** 10, 'big')",
    "[[1]] * 100000 | sum(start=[])",
    "(('x' * 1000000) ~ ('x' * 1000000)) ~ (('x' * 1000000) ~ ('x' * 1000000)) ~ 'x'",
)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_template_bounds_the_size_of_values(expression: str) -> None:
    assert reason(f"{{{{ {expression} }}}}", {"s": "aaaa aaaa"}) == "template_error"


@pytest.mark.parametrize("name", BOMBS)
def test_template_bounds_the_work_of_a_row(name: str) -> None:
    for joined in ("ns.s ~ ns.s", "ns.s + ns.s", "[ns.s, ns.s] | join", "'%s%s' % (ns.s, ns.s)"):
        assert reason(BOMBS[name].replace("SUM", joined), {}) == "template_error"
        if "SUM" not in BOMBS[name]:
            break


def test_work_of_one_row_is_not_taken_from_the_next() -> None:
    template = "{% for i in range(50000) %}{% endfor %}{{ s }}"
    compiled = PromptTemplate(TemplateSpec("t", template))
    assert [compiled.render({"s": "x"}, []) for _ in range(3)] == ["x"] * 3


def test_template_catches_memory_errors() -> None:
    class Large(str):
        __slots__ = ()

        def upper(self) -> str:
            raise MemoryError

    assert reason("{{ s.upper() }}", {"s": Large("x")}) == "template_error"


def test_template_keeps_usual_formats() -> None:
    row = {"s": "a\tb", "n": 5, "date": "20240101"}
    texts = {
        "{{ '{a: {' ~ n ~ '}}' }}": "{a: {5}}",
        "{{ '20240101 %s {\"a\": {%d}}' % (s, n) }}": '20240101 a\tb {"a": {5}}',
        "{{ '{0:>4}: {1}'.format(n, date) }}": "   5: 20240101",
        "{{ n | replace(5, 6) }}{{ [n, s] | join(', ') }}": "65, a\tb",
        "{{ [1, 2] | sum }}{{ [[1, 2]] | sum(start=0) if false else 3 }}": "33",
        "{{ ', '.join(['a', 'b']) }}{{ s.expandtabs(2) }}": "a, ba b",
    }
    assert {text: render(text, row) for text in texts} == texts
