from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import Answer, EvalRequest, PromptOptions
from pipeline.evals.tasks import humaneval


@pytest.fixture
def request_of_ten(data: DataFolder) -> EvalRequest:
    """The first problem, with ten samples."""
    options = PromptOptions(samples=10, sample_temperature=0.8)
    return build_requests(["humaneval"], data, options)[0]


def test_request_has_sampling_options(request_of_ten: EvalRequest) -> None:
    assert (request_of_ten.n, request_of_ten.temperature) == (10, 0.8)
    assert request_of_ten.max_tokens == 1024


def test_program_is_completed_function_and_its_tests(request_of_ten: EvalRequest) -> None:
    assert humaneval.program(request_of_ten, "    return a + b") == (
        "def add(a, b):\n    '''Sum.'''\n    return a + b\n"
        "def check(candidate):\n    assert candidate(2, 3) == 5\n\ncheck(add)"
    )


def test_score_is_pass_at_k_of_executed_samples(request_of_ten: EvalRequest) -> None:
    samples = [Answer(passed=number < 3) for number in range(10)]
    verdict = humaneval.score(request_of_ten, samples)
    assert verdict.values == {"pass@1,create_test": pytest.approx(0.3), "pass@10,create_test": 1.0}
    assert verdict.answer == "3 of 10 passed"


def test_score_without_execution_has_no_values(request_of_ten: EvalRequest) -> None:
    assert humaneval.score(request_of_ten, [Answer()]).values == {}


def test_failed_row_fails_all_its_samples(request_of_ten: EvalRequest) -> None:
    failed = humaneval.score(request_of_ten, [Answer(error="prompt_too_long: x")])
    assert failed.values == {"pass@1,create_test": 0.0, "pass@10,create_test": 0.0}


@given(st.integers(1, 40), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_success(n: int, numbers: st.DataObject) -> None:
    passed = numbers.draw(st.integers(0, n))
    k = numbers.draw(st.integers(1, n))
    expected = 1 - comb(n - passed, k) / comb(n, k)
    assert humaneval.pass_at_k(n, passed, k) == pytest.approx(expected, abs=1e-12)
