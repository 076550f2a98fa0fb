"""OccurrencePenalties against a plain loop over the generated tokens."""

import numpy as np
import pytest

from actors.engine.logits.chain import LogitsChain
from actors.engine.logits.occurrence_penalties import OccurrencePenalties
from actors.protocol.sampling import Sampling
from tests.actors.engine.logits.harness import VOCABULARY, Row, process

CHAIN = LogitsChain((OccurrencePenalties(),))
PENALTIES = [(0.75, 0.0), (0.0, 0.5), (-1.5, 2.0), (0.0, 0.0)]  # presence, frequency
PROMPTS = [[5, 5, 60], [7], [9, 9, 9, 1, 2], [8]]
# token 0 counts like any other, and tokens of the prompt count once they are generated
GENERATED = [[5, 8, 8, 63], [0, 0, 0, 30], [11, 9, 11, 11, 11, 11], [8, 8, 8, 8]]


def rows() -> list[Row]:
    result = []
    for penalties, prompt, generated in zip(PENALTIES, PROMPTS, GENERATED, strict=True):
        presence, frequency = penalties
        sampling = Sampling(9, presence_penalty=presence, frequency_penalty=frequency)
        result.append(Row(sampling, prompt, generated))
    return result


def logits_of_rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    # multiples of 1/8: the penalties are exact in float32
    return (rng.integers(-40, 40, (len(PROMPTS), VOCABULARY)) / 8).astype(np.float32)


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("steps", [0, 2, 4])
def test_penalties_count_generated_tokens_only(shards: int, steps: int) -> None:
    """`steps` 4: the first step of the call has the prompt's last token as its input."""
    logits = logits_of_rows()
    result = process(CHAIN, rows(), logits, shards=shards, steps=steps)
    expected = logits.copy()
    for row, generated in enumerate(GENERATED):
        presence, frequency = PENALTIES[row]
        for token in set(generated):
            expected[row, token] -= presence + frequency * generated.count(token)
    np.testing.assert_array_equal(result, expected)


def test_penalties_before_the_first_token_change_nothing() -> None:
    logits = logits_of_rows()
    fresh = [row._replace(generated=[]) for row in rows()]
    np.testing.assert_array_equal(process(CHAIN, fresh, logits), logits)


def test_penalty_host_arrays_are_0_for_unused_rows() -> None:
    sampling = Sampling(9, presence_penalty=0.5, frequency_penalty=-1.0)
    arrays = OccurrencePenalties().host_arrays([sampling, None])
    assert arrays.presence.tolist() == [0.5, 0.0]
    assert arrays.frequency.tolist() == [-1.0, 0.0]
