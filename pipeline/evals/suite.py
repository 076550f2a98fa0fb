"""The interface of a task: its data and two small functions.

One file of tasks/ per suite; does not depend on files, outputs or reports.

    prompts: documents of a data set → EvalRequest, one per document
    score:   a request and the answers to it → Verdict, its value for each metric

A suite holds the tasks that share these functions (MMLU's 57 subjects). Names of tasks, groups and
metrics are those of lm-evaluation-harness; a metric's name is `<metric>,<filter>`, as in its
results.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.evals.data_folder import DataFolder
from pipeline.evals.execution.programs import Program


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """One document of a task as a row to run.

    The main job scores the `choices`, or completes the prompt of a row without them.
    """

    id: str  # <task>/<doc_id>
    task: str
    doc_id: int  # position among the task's test rows
    prompt: str
    target: str  # what is right: one of `choices`, or what the metric compares a completion with
    choices: tuple[str, ...] | None = None  # continuations of the prompt
    stop: tuple[str, ...] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    n: int | None = None  # samples

    @classmethod
    def of_choices(
        cls, task: str, doc_id: int, prompt: str, choices: Sequence[str], answer: int
    ) -> "EvalRequest":
        """Returns a request that scores each choice; `answer` is the index of the right one."""
        return cls(
            id=f"{task}/{doc_id}",
            task=task,
            doc_id=doc_id,
            prompt=prompt,
            target=choices[answer],
            choices=tuple(choices),
        )

    @classmethod
    def of_completion(
        cls,
        task: str,
        doc_id: int,
        prompt: str,
        target: str,
        *,
        stop: Sequence[str],
        max_tokens: int,
    ) -> "EvalRequest":
        """Returns a request for one greedy completion."""
        return cls(
            id=f"{task}/{doc_id}",
            task=task,
            doc_id=doc_id,
            prompt=prompt,
            target=target,
            stop=tuple(stop),
            max_tokens=max_tokens,
            temperature=0.0,
            n=1,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """One output row of a request.

    A row that failed has an `error` and nothing else.
    """

    text: str = ""  # up to the first stop string
    loglikelihoods: tuple[float, ...] = ()  # one per choice, natural log
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    error: str | None = None
    passed: bool | None = None  # whether its program ran well; None: not executed


@dataclass(frozen=True, slots=True)
class Verdict:
    """Values of a document."""

    values: Mapping[str, float]  # by metric; one that was not computed is absent
    answer: str  # that was extracted from the output
    confidence: float | None = None  # probability of the chosen one among the candidates


@dataclass(frozen=True, slots=True)
class Group:
    """Tasks that are summed up, each weighted by its number of documents."""

    name: str
    alias: str
    tasks: frozenset[str]


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """Options of prompts that the user sets."""

    limit: int | None = None  # only the first documents of each task
    samples: int = 1  # of each document of suites whose metric uses several
    sample_temperature: float = 0.0  # of these


@dataclass(frozen=True, slots=True)
class Suite:
    """Tasks that share their prompts and their metric."""

    name: str
    tasks: Mapping[str, str]  # name of each task → its alias
    # of one task, in the order of its documents
    prompts: Callable[[DataFolder, str, PromptOptions], Iterator[EvalRequest]]
    score: Callable[[EvalRequest, Sequence[Answer]], Verdict]
    # whether the data set holds the task
    has_task: Callable[[DataFolder, str], bool] = lambda _data, _task: True
    groups: tuple[Group, ...] = ()  # the widest last
    # completion → Python program whose success is the metric
    program: Callable[[EvalRequest, str], Program] | None = None
    # continuations that one candidate answer is scored by; 2: two that are subtracted
    choices_per_candidate: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks and groups, as --tasks accepts them."""
        return (*self.tasks, *(group.name for group in self.groups))

    def members(self, name: str) -> tuple[str, ...]:
        """Returns the tasks of a group, or the task of this name, in the suite's order."""
        if name in self.tasks:
            return (name,)
        group_tasks = next(group.tasks for group in self.groups if group.name == name)
        return tuple(task for task in self.tasks if task in group_tasks)


def task_names(requests: Iterable[EvalRequest]) -> tuple[str, ...]:
    """Returns the tasks of requests, each once, in the order of the requests."""
    return tuple(dict.fromkeys(request.task for request in requests))
