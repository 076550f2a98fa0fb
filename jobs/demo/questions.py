"""A seed -> questions with one right answer among a few choices: the demo's data set, and its tokenizer's training text.

Every sentence here was written for this project. Knows nothing of tokenizers, models or Parquet.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

NAMES = ("Ana", "Ben", "Chen", "Dora", "Emil", "Fatma", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena", "Mira", "Nils", "Paul")
THINGS = ("apples", "books", "cards", "coins", "eggs", "keys", "pens", "plums", "shells", "stamps")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
ORDERS = (
    ("day", ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")),
    ("month", MONTHS),
    ("letter", tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")),
)
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


@dataclass(frozen=True, slots=True)
class Question:
    """`answer` is one of `choices`; each choice is text that follows `prompt` directly, its leading space included."""

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


def _numeric(draw: Random, category: str, prompt: str, right: int) -> Question:
    choices = tuple(f" {number}" for number in _numbers_near(draw, right, 4))
    return Question(category, prompt, choices, f" {right}")


def _sum(draw: Random) -> Question:
    left, right = draw.randint(0, 99), draw.randint(0, 99)
    if draw.random() < 0.5:
        return _numeric(draw, "sum", f"{left} + {right} =", left + right)
    return _numeric(draw, "sum", f"{left + right} - {right} =", left)


def _comparison(draw: Random) -> Question:
    left, right = draw.sample(range(1000), 2)
    word, answer = draw.choice((("larger", max(left, right)), ("smaller", min(left, right))))
    return Question("comparison", f"Which number is {word}, {left} or {right}?\nAnswer:", (f" {left}", f" {right}"), f" {answer}")


def _fact(draw: Random) -> Question:
    if draw.random() < 0.5:
        pair = draw.sample(draw.choice(OPPOSITES), 2)
        words = [word for known in OPPOSITES for word in known if word not in pair]
        choices = [pair[1], *draw.sample(words, 3)]
        prompt = f"The opposite of {pair[0]} is"
    else:
        what, order = draw.choice(ORDERS)
        place = draw.randrange(len(order) - 1)
        choices = [order[place + 1], *draw.sample([word for word in order if word not in order[place : place + 2]], 3)]
        prompt = f"The {what} after {order[place]} is"
    answer = choices[0]
    draw.shuffle(choices)
    return Question("fact", prompt, tuple(f" {word}" for word in choices), f" {answer}")


def _multiple_choice(draw: Random) -> Question:
    chosen = draw.sample(KINDS, len(LETTERS))
    place = draw.randrange(len(LETTERS))
    kind = chosen[place][0]
    options = "\n".join(f"{letter}. {draw.choice(words)}" for letter, (_, words) in zip(LETTERS, chosen, strict=True))
    article = "an" if kind[0] in "aeiou" else "a"
    prompt = f"Which of these is {article} {kind}?\n{options}\nAnswer:"
    return Question("multiple_choice", prompt, tuple(f" {letter}" for letter in LETTERS), f" {LETTERS[place]}")


def _word_problem(draw: Random) -> Question:
    name, friend = draw.sample(NAMES, 2)
    thing, start, change = draw.choice(THINGS), draw.randint(11, 40), draw.randint(2, 10)
    story, right = draw.choice(
        (
            (f"{name} has {start} {thing} and finds {change} more.", start + change),
            (f"{name} has {start} {thing} and gives {change} of them to {friend}.", start - change),
            (f"{name} fills {change} bags with {start} {thing} each.", start * change),
        )
    )
    return _numeric(draw, "word_problem", f"{story} How many {thing} does {name} have now?\nAnswer:", right)


MAKERS: tuple[Callable[[Random], Question], ...] = (_sum, _comparison, _fact, _multiple_choice, _word_problem)


def questions(seed: int) -> Iterator[Question]:
    """Yields questions without end, the categories in turn; equal seeds give equal sequences. Questions may recur."""
    draw = Random(seed)
    while True:
        for maker in MAKERS:
            yield maker(draw)


def distinct_questions(seed: int, count: int) -> list[Question]:
    """Returns the first `count` questions of the sequence whose prompts differ."""
    found: dict[str, Question] = {}
    for question in questions(seed):
        found.setdefault(question.prompt, question)
        if len(found) == count:
            break
    return list(found.values())


def transcript(question: Question) -> str:
    """Returns the question with its answer: one text to train on."""
    return question.prompt + question.answer
