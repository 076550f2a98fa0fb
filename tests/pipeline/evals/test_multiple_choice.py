import pytest

from pipeline.errors import DatasetError
from pipeline.evals.multiple_choice import accuracy, confidence
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
    assert confidence(Answer(loglikelihoods=(0.0, 0.0, -1000.0))) == pytest.approx(0.5)
    assert confidence(Answer(text="x")) is None


def test_accuracy_refuses_wrong_number_of_loglikelihoods() -> None:
    with pytest.raises(DatasetError, match=r"t/0: expected 3 log-likelihoods.*got 1"):
        accuracy(REQUEST, (Answer(loglikelihoods=(-1.0,)),))


def test_accuracy_refuses_target_outside_the_choices() -> None:
    request = EvalRequest("t/0", "t", 0, "?", " Z", choices=(" A",))
    with pytest.raises(DatasetError, match="target ' Z' is none"):
        accuracy(request, (Answer(loglikelihoods=(-1.0,)),))
