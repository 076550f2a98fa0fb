"""Questions with one right answer among a few choices, for training and evaluating the demo model.

`held_out` divides the questions by a digest of their text: those held out evaluate the model, the
others train it. The two sets are disjoint for all seeds. Every sentence was written for this
project.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
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
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("high", "low"), ("light", "dark"),
    ("old", "young"), ("open", "closed"), ("wet", "dry"), ("full", "empty"), ("hard", "soft"),
    ("early", "late"), ("near", "far"), ("loud", "quiet"), ("rich", "poor"),
)  # fmt: skip
CATEGORIES = (
    ("animal", ("horse", "cat", "whale", "frog", "crow", "bee")),
    ("plant", ("oak", "rose", "grass", "fern", "wheat", "moss")),
    ("metal", ("iron", "gold", "copper", "tin", "zinc", "lead")),
    ("colour", ("red", "blue", "green", "yellow", "white", "black")),
    ("tool", ("hammer", "saw", "drill", "rake", "spade", "file")),
)
LETTERS = ("A", "B", "C", "D")
HELD_OUT_SHARE = 16  # one of this many questions is held out, the others are training data


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
    """Returns `count` distinct numbers >= 0 in random order: `right` and numbers close to it."""
    lowest = max(0, right - 10)
    distractors = [number for number in range(lowest, right + 11) if number != right]
    numbers = [right, *draw.sample(distractors, count - 1)]
    draw.shuffle(numbers)
    return numbers


def _as_choices(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(f" {value}" for value in values)


def _sum(draw: Random) -> Question:
    first = draw.randint(0, 99)
    second = draw.randint(0, 99)
    if draw.random() < 0.5:
        prompt = f"{first} + {second} ="
        result = first + second
    else:
        prompt = f"{first + second} - {second} ="
        result = first
    choices = _as_choices(_numbers_near(draw, result, 4))
    return Question("sum", prompt, choices, f" {result}")


def _comparison(draw: Random) -> Question:
    first, second = draw.sample(range(1000), 2)
    comparisons = (("larger", max(first, second)), ("smaller", min(first, second)))
    word, answer = draw.choice(comparisons)
    prompt = f"Which number is {word}, {first} or {second}?\nAnswer:"
    return Question("comparison", prompt, (f" {first}", f" {second}"), f" {answer}")


def _fact(draw: Random) -> Question:
    subject = draw.randrange(3)
    if subject == 0:
        word, answer = draw.sample(draw.choice(OPPOSITES), 2)
        vocabulary = list(chain.from_iterable(OPPOSITES))
        prompt = f"What is the opposite of {word}"
    else:
        unit, order = (("day", DAYS), ("month", MONTHS))[subject - 1]
        position = draw.randrange(len(order))
        word = order[position]
        answer = order[(position + 1) % len(order)]
        vocabulary = list(order)
        prompt = f"Which {unit} comes after {word}"

    distractors = [entry for entry in vocabulary if entry not in {word, answer}]
    choices = [answer, *draw.sample(distractors, 3)]
    draw.shuffle(choices)
    alternatives = f"{', '.join(choices[:-1])} or {choices[-1]}"
    return Question(
        "fact", f"{prompt}: {alternatives}?\nAnswer:", _as_choices(choices), f" {answer}"
    )


def multiple_choice(draw: Random) -> Question:
    """Returns a question in MMLU's form; the answer is the letter of one of four words."""
    categories = draw.sample(CATEGORIES, len(LETTERS))
    position = draw.randrange(len(LETTERS))
    category, _ = categories[position]

    options = []
    for letter, (_, words) in zip(LETTERS, categories, strict=True):
        options.append(f"{letter}. {draw.choice(words)}")

    article = "an" if category[0] in "aeiou" else "a"
    prompt = "\n".join([f"Which of these is {article} {category}?", *options, "Answer:"])
    return Question("multiple_choice", prompt, _as_choices(LETTERS), f" {LETTERS[position]}")


def word_problem(draw: Random) -> Question:
    """Returns a story in GSM8K's form; the answer works it out and ends in "The answer is N."."""
    name, friend = draw.sample(NAMES, 2)
    thing = draw.choice(THINGS)
    start = draw.randint(11, 89)
    change = draw.randint(2, 10)
    bags = draw.randint(2, 9)
    per_bag = draw.randint(2, 9)

    gained = f"{name} has {start} {thing} and finds {change} more."
    given_away = f"{name} has {start} {thing} and gives {change} of them to {friend}."
    packed = f"{name} fills {bags} bags with {per_bag} {thing} each."
    stories = (
        (gained, f"{start} + {change}", start + change),
        (given_away, f"{start} - {change}", start - change),
        (packed, f"{bags} * {per_bag}", bags * per_bag),
    )
    story, calculation, result = draw.choice(stories)

    prompt = f"Q: {story} How many {thing} does {name} have now?\nA:"
    solutions = {}
    for number in _numbers_near(draw, result, 4):
        solutions[number] = f" {calculation} = {number}. The answer is {number}."
    return Question("word_problem", prompt, tuple(solutions.values()), solutions[result])


Maker = Callable[[Random], Question]
MAKERS: tuple[Maker, ...] = (_sum, _comparison, _fact, multiple_choice, word_problem)
TRAINING_MIX: tuple[Maker, ...] = (  # sums are the shortest and the hardest
    _sum, _comparison, _sum, _fact, _sum, multiple_choice, _sum, word_problem, _comparison, _sum,
)  # fmt: skip


def held_out(question: Question) -> bool:
    """Returns whether the question is for evaluation; all others are for training."""
    return zlib.crc32(question.prompt.encode()) % HELD_OUT_SHARE == 0


def questions(seed: int, makers: tuple[Maker, ...] = MAKERS) -> Iterator[Question]:
    """Yields an endless sequence of questions; the makers alternate.

    Equal seeds give equal sequences. Questions may recur.
    """
    draw = Random(seed)
    while True:
        for maker in makers:
            yield maker(draw)


def training_questions(seed: int, makers: tuple[Maker, ...] = MAKERS) -> Iterator[Question]:
    """Yields questions to train on, without end; see `questions`."""
    return (question for question in questions(seed, makers) if not held_out(question))


def held_out_questions(seed: int, count: int, makers: tuple[Maker, ...] = MAKERS) -> list[Question]:
    """Returns `count` held-out questions of distinct prompts, evenly over the categories."""
    selected: dict[str, Question] = {}
    per_category = -(-count // len(makers))
    missing = {maker(Random(0)).category: per_category for maker in makers}
    for question in questions(seed, makers):
        is_new = question.prompt not in selected
        if held_out(question) and missing[question.category] and is_new:
            selected[question.prompt] = question
            missing[question.category] -= 1
        if len(selected) == count:
            break
    return list(selected.values())


def transcript(question: Question) -> str:
    """Returns the question with its answer: one text to train on."""
    return question.prompt + question.answer
