import jinja2
import pytest

from pipeline.templates import work_limits
from pipeline.templates.work_limits import WorkBudget, nested_size


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("abc", 3),
        (7, 1),
        (range(9), 9),
        (["ab", 1], 4 + 4 + 3),
        ({"k": (1,)}, 4 + 1 + 4 + 1),
        ([["a"]] * 2, 2 * 4 + 2 * (4 + 1)),
    ],
)
def test_nested_size_counts_characters_and_items(value: object, size: int) -> None:
    assert nested_size(value, 100) == size


def test_nested_size_stops_above_its_limit() -> None:
    value: list[object] = [1]
    for _ in range(200):
        value = [value, value]
    assert 1000 < nested_size(value, 1000) < 1020


def test_budget_ends_with_its_last_character() -> None:
    budget = WorkBudget(remaining=2 * work_limits.STEP_WORK + 3)
    budget.spend("abc")
    budget.spend()
    assert budget.remaining == 0
    with pytest.raises(jinja2.TemplateRuntimeError, match="too much work for one row"):
        budget.spend()


def test_size_of_a_value_is_limited() -> None:
    work_limits.check_size(work_limits.MAX_CHARS)
    with pytest.raises(jinja2.TemplateRuntimeError, match=r"4,000,001 characters or items"):
        work_limits.check_size(work_limits.MAX_CHARS + 1)
