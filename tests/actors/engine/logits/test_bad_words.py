"""BadWords against a plain loop over words and completions."""

import numpy as np
import pytest

from actors.engine.logits.bad_words import BadWords
from actors.engine.logits.chain import LogitsChain
from actors.engine.logits.columns import NO_TOKEN
from actors.engine.sampling import MASKED
from actors.protocol.sampling import Sampling
from tests.actors.engine.logits.harness import VOCABULARY, Row, process

CHAIN = LogitsChain((BadWords(),))
GENERATED = [5, 8, 63, 8]
Words = tuple[tuple[int, ...], ...]


def masked_tokens(
    words: Words, generated: list[int], *, prompt: list[int] | None = None, steps: int = 0
) -> list[int]:
    """Returns the tokens that the processor masks."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (1, VOCABULARY)).astype(np.float32)
    row = Row(Sampling(9, bad_words=words), prompt or [1], generated)
    result = process(CHAIN, [row], logits, shards=4, steps=steps)
    is_masked = result[0] == MASKED
    np.testing.assert_array_equal(result[0][~is_masked], logits[0][~is_masked])
    return np.flatnonzero(is_masked).tolist()  # type: ignore[no-any-return]


def completing_tokens(words: Words, generated: list[int]) -> list[int]:
    """Returns the last tokens of the words whose other tokens end the completion."""
    tokens = set()
    for word in words:
        length = len(word) - 1
        if length <= len(generated) and tuple(generated[len(generated) - length :]) == word[:-1]:
            tokens.add(word[-1])
    return sorted(tokens)


@pytest.mark.parametrize("steps", [0, 2, 4])
def test_bad_words_mask_the_token_that_completes_them(steps: int) -> None:
    words = (
        (7,),  # one token: always
        (8, 20),  # the completion ends with its first token
        (63, 8, 21),
        (5, 8, 63, 8, 22),  # all of the completion
        (5, 8, 23),  # lies inside of the completion
        (8, 63, 24),
        (1, 5, 8, 63, 8, 25),  # begins in the prompt, which does not count
        (9, 5, 8, 63, 8, 26),
    )
    expected = completing_tokens(words, GENERATED)
    assert expected == [7, 20, 21, 22]
    assert masked_tokens(words, GENERATED, steps=steps) == expected


def test_bad_words_do_not_count_the_prompt() -> None:
    words = ((3, 20), (4, 3, 21), (22,))
    assert masked_tokens(words, [], prompt=[4, 3]) == [22]


def test_bad_words_longer_than_the_shortest_tail_match() -> None:
    generated = list(range(10, 18))
    words = ((*generated, 40), (*generated[1:], 41), (9, *generated[1:], 42))
    assert masked_tokens(words, generated) == [40, 41]


def test_bad_words_host_arrays_align_prefixes_at_the_end() -> None:
    sampling = Sampling(9, bad_words=((8, 9, 20), (7,)))
    arrays = BadWords().host_arrays([sampling, None])
    assert arrays.prefix.shape == (2, 16, 4)
    assert arrays.prefix[0, 0].tolist() == [NO_TOKEN, NO_TOKEN, 8, 9]
    assert arrays.prefix[0, 1].tolist() == [NO_TOKEN] * 4
    assert arrays.last[0, :3].tolist() == [20, 7, NO_TOKEN]
    assert (arrays.last[1] == NO_TOKEN).all()
