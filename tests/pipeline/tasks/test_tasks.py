"""What holds for every task, and the registry of tasks."""

import pytest

from pipeline.input.roles import PROMPT
from pipeline.tasks import (
    EMBED,
    GENERATE,
    PERPLEXITY,
    SCORE,
    TASKS,
    TEACH,
    LogprobOptions,
    OutputOptions,
    Task,
)

ALL_TASKS = list(TASKS.values())


def test_registry_has_each_task_by_its_name() -> None:
    assert TASKS == {
        "generate": GENERATE,
        "score": SCORE,
        "perplexity": PERPLEXITY,
        "embed": EMBED,
        "teach": TEACH,
    }
    for name, task in TASKS.items():
        assert task.name == name
        assert task.help


@pytest.mark.parametrize("task", ALL_TASKS, ids=list(TASKS))
def test_task_reads_the_prompt_first(task: Task) -> None:
    assert task.input_roles[0] is PROMPT


TASKS_WITH_LOGPROB_FLAGS = [task for task in ALL_TASKS if task not in (EMBED, TEACH)]


@pytest.mark.parametrize("task", [EMBED, TEACH], ids=lambda task: task.name)
def test_task_without_flags_of_logprobs_ignores_them(task: Task) -> None:
    expected = task.logprob_options(LogprobOptions(None, None))
    assert task.logprob_options(LogprobOptions(generated=3, prompt=2, scored=1)) == expected


@pytest.mark.parametrize("task", TASKS_WITH_LOGPROB_FLAGS, ids=lambda task: task.name)
def test_task_has_logprobs_of_generated_tokens_only_if_it_generates(task: Task) -> None:
    options = task.logprob_options(LogprobOptions(generated=3, prompt=2))
    assert options.prompt == 2
    assert options.generated == (3 if task.generates else None)
    assert task.logprob_options(LogprobOptions(None, None)) == LogprobOptions(None, None)


@pytest.mark.parametrize("task", TASKS_WITH_LOGPROB_FLAGS, ids=lambda task: task.name)
def test_task_has_logprobs_of_scored_tokens_only_if_it_scores(task: Task) -> None:
    options = task.logprob_options(LogprobOptions(generated=3, prompt=None, scored=0))
    assert options.scored == (None if task.generates else 0)
    assert task.logprob_options(LogprobOptions(generated=3, prompt=2)).scored is None


def test_perplexity_reports_as_many_tokens_as_for_its_prompt() -> None:
    options = PERPLEXITY.logprob_options(LogprobOptions(generated=0, prompt=4, scored=0))
    assert (options.prompt, options.scored) == (4, 4)


@pytest.mark.parametrize("scored", [None, 0, 2])
@pytest.mark.parametrize("task", ALL_TASKS, ids=list(TASKS))
def test_task_columns_of_options_it_does_not_have_are_absent(
    task: Task, scored: int | None
) -> None:
    requested = LogprobOptions(generated=3, prompt=2, scored=scored)
    computed = task.logprob_options(requested)
    of_requested = task.output_columns(OutputOptions(requested, choices=False))
    of_computed = task.output_columns(OutputOptions(computed, choices=False))
    assert [column.name for column in of_requested] == [column.name for column in of_computed]


@pytest.mark.parametrize("task", ALL_TASKS, ids=list(TASKS))
def test_task_columns_have_names_of_their_own(task: Task) -> None:
    options = OutputOptions(LogprobOptions(1, 1, 1), choices=True)
    names = [column.name for column in task.output_columns(options)]
    assert len(set(names)) == len(names)
