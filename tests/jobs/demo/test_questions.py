"""The demo's questions: correct, distinct choices, reproducible, training and test disjoint."""

from itertools import islice

from jobs.demo.questions import (
    CATEGORIES,
    DAYS,
    HELD_OUT_SHARE,
    MAKERS,
    MONTHS,
    OPPOSITES,
    TRAINING_MIX,
    Question,
    held_out,
    held_out_questions,
    questions,
    training_questions,
    transcript,
)

ASKED = list(islice(questions(11), 1000))


def of(category: str) -> list[Question]:
    return [question for question in ASKED if question.category == category]


def test_answer_is_one_of_distinct_choices() -> None:
    for question in ASKED:
        assert question.answer in question.choices
        assert len(set(question.choices)) == len(question.choices) >= 2
        assert all(choice.startswith(" ") and choice.strip() for choice in question.choices)
        assert question.prompt == question.prompt.strip()


def test_sums_are_right() -> None:
    assert {question.prompt.split()[1] for question in of("sum")} == {"+", "-"}
    for question in of("sum"):
        left, sign, right, _ = question.prompt.split()
        assert int(question.answer) == int(left) + (1 if sign == "+" else -1) * int(right)


def test_comparisons_are_right() -> None:
    for question in of("comparison"):
        numbers = [int(choice) for choice in question.choices]
        assert int(question.answer) == (
            max(numbers) if "larger" in question.prompt else min(numbers)
        )


def test_facts_are_right_and_choices_come_from_the_text() -> None:
    opposites = {pair[i]: pair[1 - i] for pair in OPPOSITES for i in (0, 1)}
    after = {order[i - 1]: word for order in (DAYS, MONTHS) for i, word in enumerate(order)}
    assert (opposites["cold"], after["June"], after["Sunday"]) == ("hot", "July", "Monday")
    for question in of("fact"):
        asked, listed = question.prompt.removesuffix("?\nAnswer:").split(": ")
        assert (
            question.answer.strip()
            == (opposites if "opposite" in asked else after)[asked.split()[-1]]
        )
        assert [choice.strip() for choice in question.choices] == listed.replace(
            " or ", ", "
        ).split(", ")


def test_multiple_choice_names_the_letter_of_the_right_line() -> None:
    words = dict(CATEGORIES)
    for question in of("multiple_choice"):
        asked, *options, _ = question.prompt.splitlines()
        kind = asked.removesuffix("?").split()[-1]
        assert [f" {line[0]}" for line in options if line[3:] in words[kind]] == [question.answer]


def test_word_problems_are_worked_out_and_right() -> None:
    for question in of("word_problem"):
        first, second = (int(word) for word in question.prompt.split() if word.isdigit())
        sign = "*" if "fills" in question.prompt else "+" if "finds" in question.prompt else "-"
        right = {"*": first * second, "+": first + second, "-": first - second}[sign]
        assert question.answer == f" {first} {sign} {second} = {right}. The answer is {right}."
        assert all(choice.startswith(f" {first} {sign} {second} = ") for choice in question.choices)


def test_questions_depend_on_the_seed() -> None:
    assert list(islice(questions(11), 1000)) == ASKED
    assert list(islice(questions(12), 1000)) != ASKED


def test_evaluation_questions_are_absent_from_training() -> None:
    asked = held_out_questions(1, 300)
    assert len({question.prompt for question in asked}) == len(asked) == 300
    assert [
        sum(each.category == made.category for each in asked) for made in ASKED[: len(MAKERS)]
    ] == [60] * len(MAKERS)
    assert all(map(held_out, asked))
    for makers in (MAKERS, TRAINING_MIX):
        trained = list(islice(training_questions(1, makers), 2000))
        assert not any(map(held_out, trained))
        assert {each.category for each in trained} == {each.category for each in asked}
    assert sum(map(held_out, ASKED)) in range(
        len(ASKED) // HELD_OUT_SHARE // 2, len(ASKED) // HELD_OUT_SHARE * 2
    )


def test_transcript_is_the_prompt_and_its_answer() -> None:
    assert transcript(Question("sum", "1 + 1 =", (" 2", " 3"), " 2")) == "1 + 1 = 2"
