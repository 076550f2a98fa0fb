"""LogitBias against a plain loop, to the last bit."""

import numpy as np
import pytest

from actors.engine.logits.chain import LogitsChain
from actors.engine.logits.columns import NO_TOKEN
from actors.engine.logits.logit_bias import LogitBias
from actors.protocol.sampling import Sampling
from tests.actors.engine.logits.harness import VOCABULARY, Row, process

CHAIN = LogitsChain((LogitBias(),))
MANY = tuple((token, token / 8 - 3.0) for token in range(40))
BIASES = [((5, 1.5), (63, -100.0)), (), ((0, 100.0),), MANY]


def row_with(bias: tuple[tuple[int, float], ...]) -> Row:
    return Row(Sampling(9, logit_bias=bias), [3, 4], [5])


@pytest.mark.parametrize("shards", [1, 4])
def test_bias_is_added_to_its_tokens_alone(shards: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (len(BIASES), VOCABULARY)).astype(np.float32)
    result = process(CHAIN, [row_with(bias) for bias in BIASES], logits, shards=shards)
    expected = logits.copy()
    for row, pairs in enumerate(BIASES):
        for token, bias in pairs:
            expected[row, token] += np.float32(bias)
    np.testing.assert_array_equal(result, expected)


def test_bias_host_arrays_list_tokens_beside_their_bias() -> None:
    sampling = Sampling(9, logit_bias=((5, 1.5), (63, -2.0)))
    arrays = LogitBias().host_arrays([sampling, None])
    assert arrays.tokens[0, :3].tolist() == [5, 63, NO_TOKEN]
    assert arrays.bias[0, :3].tolist() == [1.5, -2.0, 0.0]
    assert (arrays.tokens[1] == NO_TOKEN).all()
    assert not arrays.bias[1].any()
    assert arrays.bias.dtype == np.float32
