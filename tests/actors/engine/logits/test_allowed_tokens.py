"""AllowedTokens against a plain loop."""

import numpy as np
import pytest

from actors.engine.logits.allowed_tokens import AllowedTokens
from actors.engine.logits.chain import LogitsChain
from actors.engine.logits.columns import NO_TOKEN
from actors.engine.sampling import MASKED
from actors.protocol.sampling import Sampling
from tests.actors.engine.logits.harness import VOCABULARY, Row, process

CHAIN = LogitsChain((AllowedTokens(),))
ALLOWED = [(5, 63, 8), (), (0,), tuple(range(20, 50))]


@pytest.mark.parametrize("shards", [1, 4])
def test_tokens_that_are_not_allowed_are_masked(shards: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (len(ALLOWED), VOCABULARY)).astype(np.float32)
    rows = [Row(Sampling(9, allowed_token_ids=ids), [3, 4], [5]) for ids in ALLOWED]
    result = process(CHAIN, rows, logits, shards=shards)
    expected = logits.copy()
    for row, ids in enumerate(ALLOWED):
        for token in range(VOCABULARY):
            if ids and token not in ids:
                expected[row, token] = MASKED
    np.testing.assert_array_equal(result, expected)


def test_allowed_host_arrays_of_an_unused_row_allow_all() -> None:
    sampling = Sampling(9, allowed_token_ids=(7, 3))
    ids = AllowedTokens().host_arrays([None, sampling])
    assert (ids[0] == NO_TOKEN).all()
    assert ids[1, :3].tolist() == [7, 3, NO_TOKEN]
