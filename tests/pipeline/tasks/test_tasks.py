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


# The log-probs of the prompt of this one are those of the scored tokens.
OTHER_TASKS = [task for task in ALL_TASKS if task is not PERPLEXITY]
TASKS_WITH_LOGPROB_FLAGS = [task for task in ALL_TASKS if task not in (EMBED, TEACH)]


@pytest.mark.parametrize("task", [EMBED, TEACH], ids=lambda task: task.name)
def test_task_without_flags_of_logprobs_ignores_them(task: Task) -> None:
    expected = task.logprob_options(LogprobOptions(None, None))
    assert task.logprob_options(LogprobOptions(generated=3, prompt=2, scored=1)) == expected


@pytest.mark.parametrize("task", TASKS_WITH_LOGPROB_FLAGS, ids=lambda task: task.name)
def test_task_has_logprobs_of_generated_tokens_only_if_it_generates(task: Task) -> None:
    options = task.logprob_options(LogprobOptions(generated=3, prompt=2))
    assert options.prompt == (None if task is PERPLEXITY else 2)
    assert options.generated == (3 if task.generates else None)
    assert task.logprob_options(LogprobOptions(None, None)) == LogprobOptions(None, None)


@pytest.mark.parametrize("task", TASKS_WITH_LOGPROB_FLAGS, ids=lambda task: task.name)
def test_task_has_logprobs_of_scored_tokens_only_if_it_scores(task: Task) -> None:
    options = task.logprob_options(LogprobOptions(generated=3, prompt=None, scored=0))
    assert options.scored == (None if task.generates else 0)
    of_prompt = task.logprob_options(LogprobOptions(generated=3, prompt=2))
    assert of_prompt.scored == (2 if task is PERPLEXITY else None)


@pytest.mark.parametrize("prompt", [None, 0, 4])
@pytest.mark.parametrize("scored", [None, 0])
def test_perplexity_scores_the_tokens_of_its_prompt(prompt: int | None, scored: int | None) -> None:
    """One pass reports both: the columns of the prompt are those of the scored tokens."""
    options = PERPLEXITY.logprob_options(LogprobOptions(0, prompt, scored))
    requested = prompt is not None or scored is not None
    assert options == LogprobOptions(None, None, (prompt or 0) if requested else None)


@pytest.mark.parametrize("scored", [None, 0, 2])
@pytest.mark.parametrize("task", OTHER_TASKS, ids=lambda task: task.name)
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
