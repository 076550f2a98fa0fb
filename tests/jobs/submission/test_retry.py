import io
import json
from collections.abc import Sequence

import pytest

from jobs.cli.exit_codes import ExitCode
from jobs.submission.attempts import AttemptResult
from jobs.submission.config import SubmitConfig
from jobs.submission.retry import FINAL_CODES, MAX_PAUSE_S, run_with_retries
from pipeline.monitoring.run_log import RunLog

COMMAND = ["python", "jobs/score_dataset.py", "-C", "job.yaml"]


class ScriptedRunner:
    """Attempts with the given results."""

    def __init__(self, results: Sequence[AttemptResult]) -> None:
        self.results = list(results)
        self.commands: list[Sequence[str]] = []

    def run(self, command: Sequence[str]) -> AttemptResult:
        self.commands.append(command)
        return self.results.pop(0)


@pytest.mark.parametrize(
    ("results", "code", "pauses"),
    [
        ([AttemptResult(0)], 0, []),
        ([AttemptResult(75), AttemptResult(75), AttemptResult(0)], 0, [30, 60]),
        ([AttemptResult(None), AttemptResult(1), AttemptResult(3)], 3, [30, 60]),
        ([AttemptResult(2)], 2, []),
        ([AttemptResult(4)], 4, []),
        ([AttemptResult(6)], 6, []),
        ([AttemptResult(75), AttemptResult(5)], 5, [30]),
        ([AttemptResult(75, stopped=True)], 75, []),
        ([AttemptResult(75)] * 3 + [AttemptResult(None)], 75, [30, 60, 120]),
        ([AttemptResult(1)] * 4, 1, [30, 60, 120]),
    ],
)
def test_only_transient_exit_codes_are_retried(
    results: list[AttemptResult], code: int, pauses: list[float]
) -> None:
    slept: list[float] = []
    runner = ScriptedRunner(results)

    last_code = run_with_retries(runner, COMMAND, SubmitConfig(attempts=4), RunLog(), slept.append)

    assert last_code == code
    assert slept == pauses
    assert runner.results == []
    assert runner.commands == [COMMAND] * len(results)


def test_retry_pauses_are_bounded() -> None:
    slept: list[float] = []
    runner = ScriptedRunner([AttemptResult(75)] * 12)

    run_with_retries(runner, COMMAND, SubmitConfig(attempts=12), RunLog(), slept.append)

    assert max(slept) == slept[-1] == MAX_PAUSE_S


def test_retries_log_how_each_attempt_ended(capsys: pytest.CaptureFixture[str]) -> None:
    runner = ScriptedRunner([AttemptResult(75), AttemptResult(None), AttemptResult(0)])

    run_with_retries(runner, COMMAND, SubmitConfig(attempts=3), RunLog(), sleep=lambda _: None)

    assert capsys.readouterr().err.splitlines() == [
        "attempt 1 of 3: exit code 75; the same command again in 30 s",
        "attempt 2 of 3: lost; the same command again in 60 s",
        "attempt 3 of 3: exit code 0",
    ]


def test_retries_as_json_have_a_level_for_each_attempt() -> None:
    stream = io.StringIO()
    runner = ScriptedRunner([AttemptResult(75), AttemptResult(0)])

    log = RunLog("json", stream=stream)
    run_with_retries(runner, COMMAND, SubmitConfig(), log, sleep=lambda _: None)

    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    figures = [(event["level"], event["exit_code"], event["again"]) for event in events]
    assert figures == [("warning", 75, True), ("info", 0, False)]


def test_final_codes_are_all_but_failure_and_interruption() -> None:
    assert set(ExitCode) - set(FINAL_CODES) == {ExitCode.FAILED, ExitCode.INTERRUPTED}
