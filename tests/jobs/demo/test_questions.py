"""The demo's questions: right answers among distinct choices, the same for the same seed."""

from itertools import islice

import pytest

from jobs.demo.questions import MAKERS, Question, distinct_questions, questions, transcript

ASKED = list(islice(questions(11), 1000))


def test_the_answer_is_one_of_distinct_choices_that_start_with_a_space() -> None:
    for question in ASKED:
        assert question.answer in question.choices
        assert len(set(question.choices)) == len(question.choices) >= 2
        assert all(choice.startswith(" ") and choice.strip() for choice in question.choices)
        assert question.prompt == question.prompt.strip()


def test_sums_are_right() -> None:
    sums = [question for question in ASKED if question.category == "sum"]
    assert {question.prompt.split()[1] for question in sums} == {"+", "-"}
    for question in sums:
        left, sign, right, _ = question.prompt.split()
        assert int(question.answer) == int(left) + (1 if sign == "+" else -1) * int(right)


def test_comparisons_are_right() -> None:
    for question in (question for question in ASKED if question.category == "comparison"):
        numbers = [int(choice) for choice in question.choices]
        assert int(question.answer) == (max(numbers) if "larger" in question.prompt else min(numbers))


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [("The opposite of hot is", " cold"), ("The opposite of cold is", " hot"), ("The month after June is", " July")],
)
def test_facts_are_right(prompt: str, answer: str) -> None:
    [fact] = [question for question in distinct_questions(1, 2000) if question.prompt == prompt]
    assert fact.answer == answer


def test_multiple_choice_names_the_letter_of_the_right_line() -> None:
    kinds = {
        "a metal": {"iron", "gold", "copper", "tin", "zinc", "lead"},
        "an animal": {"horse", "cat", "whale", "frog", "crow", "bee"},
    }
    checked = 0
    for question in (question for question in ASKED if question.category == "multiple_choice"):
        for kind, words in kinds.items():
            if f"is {kind}?" in question.prompt:
                right = [line[0] for line in question.prompt.splitlines()[1:5] if line[3:] in words]
                assert [f" {letter}" for letter in right] == [question.answer]
                checked += 1
    assert checked > 10


def test_word_problems_are_right() -> None:
    for question in (question for question in ASKED if question.category == "word_problem"):
        first, second = (int(word) for word in question.prompt.split() if word.isdigit())
        expected = (
            first * second if "fills" in question.prompt else first + second if "finds" in question.prompt else first - second
        )
        assert question.answer == f" {expected}"


def test_equal_seeds_ask_the_same_and_other_seeds_do_not() -> None:
    assert list(islice(questions(11), 1000)) == ASKED
    assert list(islice(questions(12), 1000)) != ASKED


def test_distinct_questions_cover_every_category_and_never_repeat_a_prompt() -> None:
    asked = distinct_questions(1, 300)
    assert len({question.prompt for question in asked}) == len(asked) == 300
    assert len({question.category for question in asked}) == len(MAKERS)


def test_a_transcript_is_the_prompt_and_its_answer() -> None:
    assert transcript(Question("sum", "1 + 1 =", (" 2", " 3"), " 2")) == "1 + 1 = 2"
