"""What sampling parameters do to the logits of one position, in plain loops: the oracle of tests.

Shares nothing with the engine but the names of the parameters. In vLLM's order.
"""

from collections.abc import Sequence

import numpy as np

from actors.protocol.sampling import Sampling

HIDDEN = -1e30


def processed(
    logits: np.ndarray, sampling: Sampling, prompt: Sequence[int], generated: Sequence[int]
) -> np.ndarray:
    """Returns the logits [V] from which a token is drawn, before the temperature."""
    changed = logits.astype(np.float64)
    for token, bias in sampling.logit_bias:
        changed[token] += bias
    for token in {*prompt, *generated}:
        if changed[token] > 0:
            changed[token] /= sampling.repetition_penalty
        else:
            changed[token] *= sampling.repetition_penalty
    for token in generated:
        changed[token] -= sampling.frequency_penalty
    for token in set(generated):
        changed[token] -= sampling.presence_penalty
    for token in hidden_tokens(len(logits), sampling, generated):
        changed[token] = HIDDEN
    return changed


def hidden_tokens(size: int, sampling: Sampling, generated: Sequence[int]) -> set[int]:
    """Returns the tokens of a vocabulary of `size` that may not be drawn."""
    hidden: set[int] = set()
    for token in range(size):
        if sampling.allowed_token_ids and token not in sampling.allowed_token_ids:
            hidden.add(token)
    for word in sampling.bad_words:
        others = list(word[:-1])
        if list(generated)[len(generated) - len(others) :] == others:
            hidden.add(word[-1])
    if len(generated) < sampling.min_tokens:
        hidden |= set(sampling.stop_token_ids)
    return hidden
