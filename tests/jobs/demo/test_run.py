"""What `make demo` says of the rows that its two runs left."""

from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from jobs.demo.run import Answered, accuracy_table, answers_table, join
from tests.jobs.demo.demo_model import asked


def answered(
    completed_wrong: set[int], preferred_wrong: set[int], count: int = 20
) -> list[Answered]:
    """Returns the first questions, answered right but for some."""
    questions, completed, scored = asked(count), [], []
    for number, question in enumerate(questions):
        text = " nonsense" if number in completed_wrong else question["answer"]
        completed.append(
            {"id": question["id"], "text": text, "completion_tokens": 3, "cumulative_logprob": -0.5}
        )
        likely = [
            (choice == question["answer"]) != (number in preferred_wrong)
            for choice in question["choices"]
        ]
        scored.append(
            {
                "id": question["id"],
                "loglikelihood": [-1.25 if each else -9.0 for each in likely],
                "status": "ok",
            }
        )
    return join(
        *(pa.Table.from_pylist(rows) for rows in (questions, completed[::-1], scored[::-1]))
    )


def shown(table: Table) -> str:
    console = Console(width=160, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def figures(some: list[Answered]) -> dict[str, list[str]]:
    table: Any = accuracy_table(some)
    columns = [list(column.cells) for column in table.columns]
    return {row[0]: list(row[1:]) for row in zip(*columns, strict=True)}


def test_accuracy_counts_both_runs_by_category() -> None:
    some = answered({0, 1, 2}, {3})
    found = figures(some)
    assert found["all"][:3] == ["20", "85.0%", "95.0%"]
    assert sum(int(row[0]) for name, row in found.items() if name != "all") == 20
    assert found["comparison"][3] == "50.0%"
    assert found["sum"][3] == "25.0%"
    category = some[3].question["category"]
    same = sum(each.question["category"] == category for each in some)
    assert found[category][2] == f"{1 - 1 / same:.1%}"


def test_example_of_each_category_is_printed_with_its_verdict() -> None:
    some = answered({0}, {1})
    text = shown(answers_table(some))
    assert len(figures(some)) - 1 == 5 == text.count("log-prob -0.50")
    assert "' nonsense'" in text
    assert f"wrong: {some[0].question['answer']!r} is right" in text
    assert text.count("<- right") == 4
    assert text.count("<- wrong") == 1
