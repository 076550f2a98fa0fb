"""Evaluations of our own data sets, answered by models of a chosen skill."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.evals.answers import Answers
from pipeline.evals.comparison import Rules
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.evaluation import Evaluation, RunInfo, evaluate
from pipeline.evals.history import History
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import Answer, EvalRequest, PromptOptions
from tests.pipeline.evals import own_data

TASKS = ("mmlu", "gsm8k_cot", "humaneval")
BEGAN = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)


def requests(folder: Path) -> list[EvalRequest]:
    """The requests of all tasks."""
    return build_requests(TASKS, DataFolder(str(own_data.write(folder))), PromptOptions())


def chance(text: str) -> float:
    """A number from 0 to 1 that depends on nothing but the text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32


def answer(request: EvalRequest, skill: float, aside: str = "") -> Answer:
    """A right answer to documents below the skill, a wrong one to the others."""
    right = chance(request.id) < skill
    lengths = {
        "prompt_tokens": len(request.prompt) // 4,
        "completion_tokens": len(request.id),
        "finish_reason": "stop",
    }
    if request.choices:
        scores = [-2.0 - chance(choice + request.id) for choice in request.choices]
        scores[request.choices.index(request.target) - (0 if right else 1)] = -1.0
        return Answer(loglikelihoods=tuple(scores), prompt_tokens=lengths["prompt_tokens"])  # type: ignore[arg-type]
    if request.task == "humaneval":
        return Answer(text="    return 1", passed=right, **lengths)  # type: ignore[arg-type]
    return Answer(text=f" The answer is {request.target if right else 3}.{aside}", **lengths)  # type: ignore[arg-type]


def answers(asked: list[EvalRequest], skill: float, aside: str = "") -> Answers:
    """The answers to all requests."""
    return {request.id: (answer(request, skill, aside),) for request in asked}


def night(
    number: int, asked: list[EvalRequest], skill: float, history: History, aside: str = ""
) -> Evaluation:
    """The evaluation of one night, added to the history that is at `history`'s URL."""
    history = History.load(history.url)
    info = RunInfo(f"run{number}", BEGAN + timedelta(days=number), f"night {number}", "demo")
    found = evaluate(asked, TASKS, answers(asked, skill, aside), info, history, Rules(margin=0.01))
    history.add(found.entries, found.samples)
    return found
