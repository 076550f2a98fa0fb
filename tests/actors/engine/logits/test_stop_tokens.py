"""StopTokens against a plain loop, around the end of min_tokens."""

import numpy as np
import pytest

from actors.engine.logits.chain import LogitsChain
from actors.engine.logits.columns import NO_TOKEN
from actors.engine.logits.stop_tokens import StopTokens
from actors.engine.sampling import MASKED
from actors.protocol.sampling import Sampling
from tests.actors.engine.logits.harness import VOCABULARY, Row, process

CHAIN = LogitsChain((StopTokens(),))
GENERATED = [5, 8, 9]
MIN_TOKENS = [2, 3, 4, 9]  # of rows that have generated 3 tokens
STOPS = [(5, 63), (5, 63), (0, 63), ()]


@pytest.mark.parametrize("steps", [0, 2])
def test_stop_tokens_are_masked_before_min_tokens(steps: int) -> None:
    rows = []
    for min_tokens, stops in zip(MIN_TOKENS, STOPS, strict=True):
        sampling = Sampling(9, stop_token_ids=stops, min_tokens=min_tokens)
        rows.append(Row(sampling, [1, 2], GENERATED))
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (len(rows), VOCABULARY)).astype(np.float32)
    result = process(CHAIN, rows, logits, shards=4, steps=steps)
    expected = logits.copy()
    for number, row in enumerate(rows):
        if len(GENERATED) < row.sampling.min_tokens:
            for token in row.sampling.stop_token_ids:
                expected[number, token] = MASKED
    np.testing.assert_array_equal(result, expected)
    assert (result != logits).any(axis=1).tolist() == [False, False, True, False]


def test_stop_host_arrays_of_an_unused_row_mask_nothing() -> None:
    sampling = Sampling(9, stop_token_ids=(5, 63), min_tokens=4)
    arrays = StopTokens().host_arrays([sampling, None])
    assert arrays.tokens[0, :3].tolist() == [5, 63, NO_TOKEN]
    assert (arrays.tokens[1] == NO_TOKEN).all()
    assert arrays.first_position.tolist() == [4, 0]
