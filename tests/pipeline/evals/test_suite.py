from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.evals.data_folder import DataFolder
from pipeline.evals.suite import (
    Answer,
    EvalRequest,
    Group,
    PromptOptions,
    Suite,
    Verdict,
    task_names,
)


def no_prompts(_data: DataFolder, _task: str, _options: PromptOptions) -> Iterator[EvalRequest]:
    return iter(())


def no_score(_request: EvalRequest, _answers: Sequence[Answer]) -> Verdict:
    return Verdict({}, "")


SUITE = Suite(
    name="letters",
    tasks={"c": "C", "a": "A", "b": "B"},
    prompts=no_prompts,
    score=no_score,
    groups=(
        Group("vowels", "Vowels", frozenset({"a"})),
        Group("letters", "Letters", frozenset({"a", "b", "c"})),
    ),
)


def test_suite_names_are_tasks_then_groups() -> None:
    assert SUITE.names == ("c", "a", "b", "vowels", "letters")


@pytest.mark.parametrize(
    ("name", "tasks"), [("a", ("a",)), ("vowels", ("a",)), ("letters", ("c", "a", "b"))]
)
def test_suite_members_keep_the_order_of_its_tasks(name: str, tasks: tuple[str, ...]) -> None:
    assert SUITE.members(name) == tasks


def test_suite_holds_its_tasks_unless_it_checks(tmp_path: Path) -> None:
    assert SUITE.has_task(DataFolder(str(tmp_path)), "a")
    assert SUITE.program is None


def test_task_names_are_in_the_order_of_the_requests() -> None:
    requests = [EvalRequest(f"{task}/0", task, 0, "q", "a") for task in ("b", "a", "b")]
    assert task_names(requests) == ("b", "a")
