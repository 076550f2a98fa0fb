from collections.abc import Sequence

from pipeline.evals.answers import Answers
from pipeline.evals.scoring import executed, score
from pipeline.evals.suite import Answer
from tests.pipeline.evals.own_requests import COMPLETED, REQUESTS, SAMPLED, SCORED

ANSWERS: Answers = {
    SCORED.id: (Answer(loglikelihoods=(-2.0, -1.0, -3.0, -4.0)),),
    COMPLETED.id: (Answer(text="4"),),
    SAMPLED.id: (Answer(text="a"), Answer(text="b")),
}


def test_programs_of_suites_with_a_program_are_executed() -> None:
    executed_programs: list[str] = []

    def execute(programs: Sequence[str]) -> list[bool]:
        executed_programs.extend(programs)
        return [program.startswith("def f():a") for program in programs]

    answers = executed(REQUESTS, ANSWERS, execute)
    assert executed_programs == ["def f():a\ncheck(f)", "def f():b\ncheck(f)"]
    assert [answer.passed for answer in answers[SAMPLED.id]] == [True, False]
    assert answers[COMPLETED.id] == ANSWERS[COMPLETED.id]

    [sample] = score([SAMPLED], answers)
    assert (sample.metric, sample.value) == ("pass@1,create_test", 0.5)


def test_score_of_programs_that_were_not_executed_is_absent() -> None:
    assert score([SAMPLED], ANSWERS) == []


def test_failed_answers_are_not_executed() -> None:
    failed: Answers = {SAMPLED.id: (Answer(error="prompt_too_long: m"),)}
    assert executed([SAMPLED], failed, lambda programs: [True for _ in programs]) == failed
