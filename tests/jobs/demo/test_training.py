"""Training of the demo model: how rows are filled, and that steps learn, the same each time."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import jax
import numpy as np
import pytest

from actors.model.config import DEMO, ModelConfig
from jobs.demo.questions import TRAINING_MIX, questions, training_questions, transcript
from jobs.demo.training import TrainingConfig, make_batch, optimizer, train

SMALL: ModelConfig = replace(DEMO, emb_size=32, key_size=4, num_layers=1)
FEW = TrainingConfig(steps=25, rows=8, row_tokens=192, answer_tokens=192, warmup_share=0.1)


@pytest.fixture(autouse=True)
def _ordinary_promotion() -> Iterator[None]:
    """Optax multiplies numbers of different types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def encode(texts: list[str]) -> list[list[int]]:
    """A character is a token."""
    return [[3 + ord(character) % 700 for character in text] for text in texts]


def test_rows_hold_complete_questions_with_answer_targets() -> None:
    batch = make_batch(encode, training_questions(1, TRAINING_MIX), 2, FEW)
    known = {tuple(ids): len(prompt) for ids, prompt in _known(1, 400)}
    wanted = []
    for row, (tokens, documents) in enumerate(zip(batch.tokens, batch.documents, strict=True)):
        for number in np.unique(documents[tokens > 0]):
            at = np.flatnonzero((documents == number) & (tokens > 0))
            assert at.tolist() == list(range(at[0], at[-1] + 1)), "a question lies in one piece"
            wanted += [
                192 * row + at[0] + place - 1 for place in range(known[tuple(tokens[at])], len(at))
            ]
    assert batch.positions.tolist() == wanted[:192]
    assert batch.targets.tolist() == batch.tokens.reshape(-1)[batch.positions + 1].tolist()
    assert (batch.tokens > 0).mean() > 0.9


def _known(seed: int, count: int) -> list[tuple[list[int], str]]:
    some = islice(training_questions(seed, TRAINING_MIX), count)
    return [([*encode([transcript(each)])[0], 2], each.prompt) for each in some]


def test_rows_with_too_few_answers_are_padded() -> None:
    batch = make_batch(encode, questions(1), 2, replace(FEW, rows=1, answer_tokens=400))
    count = int((batch.targets > 0).sum())
    assert 0 < count < 400
    assert not batch.targets[count:].any()
    assert not batch.positions[count:].any()


@pytest.mark.long
@pytest.mark.slow
def test_training_lowers_the_loss_and_is_reproducible() -> None:
    found = []
    for _ in range(2):
        losses: list[float] = []
        params = train(SMALL, FEW, encode, lambda number, loss, losses=losses: losses.append(loss))
        found.append((losses, params))
    (losses, one), (_, other) = found
    assert len(losses) == FEW.steps
    assert losses[0] == pytest.approx(np.log(SMALL.vocab_size), rel=0.1)
    assert losses[-1] < 0.8 * losses[0]
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_learning_rate_rises_stays_and_falls_to_zero() -> None:
    rule = optimizer(replace(FEW, steps=100, weight_decay=0.0))
    params = {"w": np.ones((2, 2), np.float32)}
    state, sizes = rule.init(params), []
    for _ in range(101):
        updates, state = rule.update({"w": np.full((2, 2), 0.5, np.float32)}, state, params)
        sizes.append(float(-updates["w"][0, 0]))
    assert sizes[0] == 0
    assert sizes[10] == pytest.approx(FEW.learning_rate, rel=1e-3)
    assert sizes[74] == pytest.approx(FEW.learning_rate, rel=1e-3)
    assert sizes[10] > sizes[5] > 0
    assert sizes[74] > sizes[90] > sizes[100] == 0
