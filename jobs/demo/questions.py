"""A seed -> questions with one right answer among a few choices: what the demo model is trained on and asked.

A question is asked of the model only if `held_out` says so, and trained on only if not: by a digest
of its text, so that the two never meet, whatever the seeds. Every sentence here was written for
this project. Knows nothing of tokenizers, models or Parquet.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

NAMES = (
    "Ana",
    "Ben",
    "Chen",
    "Dora",
    "Emil",
    "Fatma",
    "Goran",
    "Hana",
    "Ivo",
    "Jun",
    "Kofi",
    "Lena",
    "Mira",
    "Nils",
    "Paul",
)
THINGS = ("apples", "books", "cards", "coins", "eggs", "keys", "pens", "plums", "shells", "stamps")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("high", "low"), ("light", "dark"), ("old", "young"), ("open", "closed"),
    ("wet", "dry"), ("full", "empty"), ("hard", "soft"), ("early", "late"), ("near", "far"), ("loud", "quiet"), ("rich", "poor"),
)  # fmt: skip
KINDS = (
    ("animal", ("horse", "cat", "whale", "frog", "crow", "bee")),
    ("plant", ("oak", "rose", "grass", "fern", "wheat", "moss")),
    ("metal", ("iron", "gold", "copper", "tin", "zinc", "lead")),
    ("colour", ("red", "blue", "green", "yellow", "white", "black")),
    ("tool", ("hammer", "saw", "drill", "rake", "spade", "file")),
)
LETTERS = ("A", "B", "C", "D")
HELD_OUT_SHARE = 16  # one question in so many is asked, the others are trained on


@dataclass(frozen=True, slots=True)
class Question:
    """`answer` is one of `choices`.

    Each choice is text that follows `prompt` directly, its leading space included.
    """

    category: str
    prompt: str
    choices: tuple[str, ...]
    answer: str


def _numbers_near(draw: Random, right: int, count: int) -> list[int]:
    """Returns `count` distinct numbers >= 0 in random order, `right` among them and the others close to it."""
    others = [number for number in range(max(0, right - 10), right + 11) if number != right]
    numbers = [right, *draw.sample(others, count - 1)]
    draw.shuffle(numbers)
    return numbers


def _sum(draw: Random) -> Question:
    left, right = draw.randint(0, 99), draw.randint(0, 99)
    prompt, result = (
        (f"{left} + {right} =", left + right)
        if draw.random() < 0.5
        else (f"{left + right} - {right} =", left)
    )
    return Question(
        "sum",
        prompt,
        tuple(f" {number}" for number in _numbers_near(draw, result, 4)),
        f" {result}",
    )


def _comparison(draw: Random) -> Question:
    left, right = draw.sample(range(1000), 2)
    word, answer = draw.choice((("larger", max(left, right)), ("smaller", min(left, right))))
    return Question(
        "comparison",
        f"Which number is {word}, {left} or {right}?\nAnswer:",
        (f" {left}", f" {right}"),
        f" {answer}",
    )


def _fact(draw: Random) -> Question:
    known = draw.randrange(3)
    if known == 0:
        asked, answer = draw.sample(draw.choice(OPPOSITES), 2)
        prompt, others = (
            f"What is the opposite of {asked}",
            [word for pair in OPPOSITES for word in pair],
        )
    else:
        what, order = (("day", DAYS), ("month", MONTHS))[known - 1]
        place = draw.randrange(len(order))
        asked, answer = order[place], order[(place + 1) % len(order)]
        prompt, others = f"Which {what} comes after {asked}", list(order)
    choices = [answer, *draw.sample([word for word in others if word not in {asked, answer}], 3)]
    draw.shuffle(choices)
    listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
    return Question(
        "fact", f"{prompt}: {listed}?\nAnswer:", tuple(f" {word}" for word in choices), f" {answer}"
    )


def _multiple_choice(draw: Random) -> Question:
    chosen = draw.sample(KINDS, len(LETTERS))
    place = draw.randrange(len(LETTERS))
    kind = chosen[place][0]
    options = "\n".join(
        f"{letter}. {draw.choice(words)}"
        for letter, (_, words) in zip(LETTERS, chosen, strict=True)
    )
    article = "an" if kind[0] in "aeiou" else "a"
    prompt = f"Which of these is {article} {kind}?\n{options}\nAnswer:"
    return Question(
        "multiple_choice", prompt, tuple(f" {letter}" for letter in LETTERS), f" {LETTERS[place]}"
    )


def _word_problem(draw: Random) -> Question:
    """Returns a story in GSM8K's form; the answer works it out and ends in "The answer is N."."""
    name, friend = draw.sample(NAMES, 2)
    thing, start, change = draw.choice(THINGS), draw.randint(11, 89), draw.randint(2, 10)
    bags, each = draw.randint(2, 9), draw.randint(2, 9)
    story, worked, result = draw.choice(
        (
            (
                f"{name} has {start} {thing} and finds {change} more.",
                f"{start} + {change}",
                start + change,
            ),
            (
                f"{name} has {start} {thing} and gives {change} of them to {friend}.",
                f"{start} - {change}",
                start - change,
            ),
            (
                f"{name} fills {bags} bags with {each} {thing} each.",
                f"{bags} * {each}",
                bags * each,
            ),
        )
    )
    prompt = f"Q: {story} How many {thing} does {name} have now?\nA:"
    solutions = {
        number: f" {worked} = {number}. The answer is {number}."
        for number in _numbers_near(draw, result, 4)
    }
    return Question("word_problem", prompt, tuple(solutions.values()), solutions[result])


Maker = Callable[[Random], Question]
MAKERS: tuple[Maker, ...] = (_sum, _comparison, _fact, _multiple_choice, _word_problem)
TRAINING_MIX: tuple[Maker, ...] = (  # sums are the shortest and the hardest
    _sum, _comparison, _sum, _fact, _sum, _multiple_choice, _sum, _word_problem, _comparison, _sum,
)  # fmt: skip


def held_out(question: Question) -> bool:
    """Returns whether the question is one to ask; all others are for training."""
    return zlib.crc32(question.prompt.encode()) % HELD_OUT_SHARE == 0


def questions(seed: int, makers: tuple[Maker, ...] = MAKERS) -> Iterator[Question]:
    """Yields questions without end, the makers in turn.

    Equal seeds give equal sequences. Questions may recur.
    """
    draw = Random(seed)
    while True:
        for maker in makers:
            yield maker(draw)


def training_questions(seed: int, makers: tuple[Maker, ...] = MAKERS) -> Iterator[Question]:
    """Yields questions to train on, without end; see `questions`."""
    return (question for question in questions(seed, makers) if not held_out(question))


def held_out_questions(seed: int, count: int) -> list[Question]:
    """Returns `count` questions that no training sees, their prompts distinct, as many of each category as of any other."""
    found: dict[str, Question] = {}
    wanted = {maker(Random(0)).category: -(-count // len(MAKERS)) for maker in MAKERS}
    for question in questions(seed):
        if held_out(question) and wanted[question.category] and question.prompt not in found:
            found[question.prompt] = question
            wanted[question.category] -= 1
        if len(found) == count:
            break
    return list(found.values())


def transcript(question: Question) -> str:
    """Returns the question with its answer: one text to train on."""
    return question.prompt + question.answer
