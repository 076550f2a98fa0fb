import jinja2
import pytest

from pipeline.templates.sandbox import MAX_REPEATED, ROW_ERRORS, Sandbox


def evaluate(source: str) -> object:
    return Sandbox().compile_expression(source, undefined_to_none=False)()


def test_sandbox_allows_bounded_powers_and_repetitions() -> None:
    assert evaluate("2 ** 64") == 2**64
    assert evaluate("9 ** 2 * 'ab'") == "ab" * 81
    assert evaluate("2.0 ** -64") == 2.0**-64
    assert evaluate(f"'x' * {MAX_REPEATED}") == "x" * MAX_REPEATED


@pytest.mark.parametrize(
    "source",
    [
        "2 ** 65",
        "2 ** -65",
        "((2 ** 64) ** 64) ** 64",
        "(2 ** 64) ** 64",
        f"'x' * {MAX_REPEATED + 1}",
        f"{MAX_REPEATED + 1} * [1]",
        "range(100001) | list",
    ],
)
def test_sandbox_refuses_large_results(source: str) -> None:
    with pytest.raises(ROW_ERRORS):
        evaluate(source)


@pytest.mark.parametrize("source", ["''.__class__.__mro__", "[].append(1)", "x.y"])
def test_sandbox_refuses_unsafe_access(source: str) -> None:
    with pytest.raises(jinja2.TemplateError):
        str(evaluate(source))


def test_sandbox_has_nothing_random() -> None:
    assert "random" not in Sandbox().filters
    assert "lipsum" not in Sandbox().globals
