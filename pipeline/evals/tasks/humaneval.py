"""HumanEval, 0-shot: completion of functions (lm-evaluation-harness: humaneval 1.0).

A prompt is the signature and docstring of a function. The metric is whether the completed program
passes its tests: it needs `Answer.passed`, from an execution of the program.
"""

import math
from collections.abc import Iterator, Sequence

from pipeline.evals.data_folder import DataFolder
from pipeline.evals.execution.programs import Program
from pipeline.evals.suite import Answer, EvalRequest, PromptOptions, Suite, Verdict

FOLDER = "humaneval/openai_humaneval"
COLUMNS = ("prompt", "test", "entry_point")
STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
MAX_TOKENS = 1024
CALL_OF_TESTS = "\ncheck("  # followed by the name of the function
REPORTED_K = (1, 10, 100)


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests; a request's target is the code that tests its function.

    Raises:
        DatasetError: the data set is missing.
    """
    documents = data.rows(FOLDER, "test", COLUMNS)[: options.limit]
    for doc_id, row in enumerate(documents):
        yield EvalRequest(
            id=f"{task}/{doc_id}",
            task=task,
            doc_id=doc_id,
            prompt=row["prompt"],
            target=f"{row['test']}{CALL_OF_TESTS}{row['entry_point']})",
            stop=STOP,
            max_tokens=MAX_TOKENS,
            temperature=options.sample_temperature,
            n=options.samples,
        )


def program(request: EvalRequest, completion: str) -> Program:
    """Returns the program whose success is the metric: the completed function and its tests.

    Tests may call the other functions of the prompt, whose last one lacks nothing but a body.
    """
    entry_point = request.target.rpartition(CALL_OF_TESTS)[2].rstrip(")\n")
    return Program.of(
        candidate=f"{request.prompt}{completion}",
        tests=request.target,
        helpers=f"{request.prompt}\n    pass\n",
        entry_point=entry_point,
    )


def score(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns pass@k for each k of `REPORTED_K` up to the number of samples.

    No values if programs were not executed.
    """
    if any(answer.passed is None and answer.error is None for answer in answers):
        return Verdict({}, "not executed")

    # a row that failed as a whole has one answer, and none of its samples passed
    n = request.n or len(answers)
    passed = sum(bool(answer.passed) for answer in answers)
    values = {}
    for k in REPORTED_K:
        if k <= n:
            metric = f"pass@{k},create_test"
            values[metric] = pass_at_k(n, passed, k)
    if n > 1:
        return Verdict(values, f"{passed} of {n} passed")
    return Verdict(values, "passed" if passed else "failed")


def pass_at_k(n: int, passed: int, k: int) -> float:
    """Returns the probability that at least one of k samples passes (Chen et al. 2021, §2.1).

    Args:
        n: samples from which k are drawn.
        passed: samples of these that passed.
        k: samples that are drawn.
    """
    if n - passed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / size for size in range(n - passed + 1, n + 1))


SUITES = (Suite("humaneval", {"humaneval": "humaneval"}, prompts, score, program=program),)
