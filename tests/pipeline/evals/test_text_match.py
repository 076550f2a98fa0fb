import pytest

from pipeline.evals.text_match import NO_MATCH, Extraction, cut_at_stops, exact_match


@pytest.mark.parametrize(("match_index", "answer"), [(0, "3"), (-1, "12")])
def test_extraction_takes_the_match_at_its_index(match_index: int, answer: str) -> None:
    assert Extraction("number", r"\d+", match_index).answer("3 of 5 are 12") == answer


def test_extraction_takes_the_first_group_that_is_not_empty() -> None:
    extraction = Extraction("either", r"(a)?(b)? !")
    assert extraction.answer("b !") == "b"
    assert extraction.answer(" !") == NO_MATCH


def test_extraction_strips_the_answer() -> None:
    assert Extraction("rest", r"is(.*)").answer("it is  4 ") == "4"


def test_extraction_without_a_match_is_invalid() -> None:
    assert Extraction("number", r"\d+", -1).answer("none") == "[invalid]"


@pytest.mark.parametrize(
    ("text", "cut"), [("one\n\ntwo Q: three", "one"), ("one Q: two\n\n", "one "), ("one", "one")]
)
def test_text_ends_at_the_first_stop_in_it(text: str, cut: str) -> None:
    assert cut_at_stops(text, ("Q:", "\n\n")) == cut


def test_exact_match_ignores_case_and_patterns() -> None:
    assert exact_match("$1,002.", "1002", (",", r"\$", r"\.$"))
    assert exact_match("Yes", "yes", ())
    assert not exact_match("1,002", "1003", (",",))


def test_exact_match_removes_patterns_in_their_order() -> None:
    assert exact_match("x#### 4", "4", ("#### ", "x(?=4)"))
    assert not exact_match("x#### 4", "4", ("x(?=4)", "#### "))
