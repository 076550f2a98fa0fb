import numpy as np
import pytest

from pipeline.errors import DatasetError
from pipeline.evals.multiple_choice import accuracy, accuracy_and_normalized, confidence
from pipeline.evals.suite import Answer, EvalRequest

REQUEST = EvalRequest("t/0", "t", 0, "?", " B", choices=(" A", " B", " C"))


def test_accuracy_chooses_the_first_of_equally_likely_choices() -> None:
    right = accuracy(REQUEST, (Answer(loglikelihoods=(-2.0, -1.0, -1.0)),))
    assert (right.values, right.answer) == ({"acc,none": 1.0}, " B")
    wrong = accuracy(REQUEST, (Answer(loglikelihoods=(-1.0, -1.0, -2.0)),))
    assert (wrong.values, wrong.answer) == ({"acc,none": 0.0}, " A")


def test_accuracy_of_failed_row_is_zero() -> None:
    assert accuracy(REQUEST, (Answer(error="x: y"),)).values == {"acc,none": 0.0}


def test_confidence_is_the_probability_among_the_choices() -> None:
    assert confidence(np.array([0.0, 0.0, -1000.0])) == pytest.approx(0.5)
    verdict = accuracy(REQUEST, (Answer(loglikelihoods=(-1.0, -1.0, -1000.0)),))
    assert verdict.confidence == pytest.approx(0.5)
    assert accuracy(REQUEST, (Answer(error="x: y"),)).confidence is None


def test_normalized_accuracy_divides_by_characters_without_the_delimiter() -> None:
    request = EvalRequest("t/0", "t", 0, "?", " bbbb", choices=(" aa", " bbbb"))
    answers = (Answer(loglikelihoods=(-3.0, -5.0)),)  # -1.5 and -1.25 per character
    verdict = accuracy_and_normalized(request, answers)
    assert verdict.values == {"acc,none": 0.0, "acc_norm,none": 1.0}
    assert verdict.answer == " aa"
    failed = accuracy_and_normalized(request, (Answer(error="x: y"),))
    assert failed.values == {"acc,none": 0.0, "acc_norm,none": 0.0}


def test_normalized_accuracy_refuses_an_empty_choice() -> None:
    request = EvalRequest("t/0", "t", 0, "?", " b", choices=(" ", " b"))
    with pytest.raises(DatasetError, match="t/0: choice 0 is empty"):
        accuracy_and_normalized(request, (Answer(loglikelihoods=(-3.0, -5.0)),))


def test_accuracy_refuses_wrong_number_of_loglikelihoods() -> None:
    with pytest.raises(DatasetError, match=r"t/0: expected 3 log-likelihoods.*got 1"):
        accuracy(REQUEST, (Answer(loglikelihoods=(-1.0,)),))


def test_accuracy_refuses_target_outside_the_choices() -> None:
    request = EvalRequest("t/0", "t", 0, "?", " Z", choices=(" A",))
    with pytest.raises(DatasetError, match="target ' Z' is none"):
        accuracy(request, (Answer(loglikelihoods=(-1.0,)),))
