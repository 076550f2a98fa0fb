"""Detects that the parameters of a request mask every token of the vocabulary.

Decode samples a masked token only if all tokens are masked. The check of the sampled token on the
host therefore needs no collective on the devices.
"""

from actors.protocol.errors import InvalidParameterError
from actors.protocol.sampling import Sampling

MASKING_PARAMETERS = ("allowed_token_ids", "bad_words", "stop_token_ids")


class MaskedTokenCheck:
    """The masks of one completion, applied to its tokens in order.

    Args:
        sampling: the parameters of the completion.
        eos_token: the model's end-of-text token.
    """

    def __init__(self, sampling: Sampling, eos_token: int) -> None:
        self._allowed_tokens = frozenset(sampling.allowed_token_ids)
        self._min_tokens = sampling.min_tokens
        self._parameters = _masking_parameters(sampling)
        self._tokens: list[int] = []

        self._early_tokens = set(sampling.stop_token_ids)  # masked before min_tokens
        if not sampling.ignore_eos:
            self._early_tokens.add(eos_token)

        self._prefixes_by_last_token: dict[int, list[list[int]]] = {}
        for word in sampling.bad_words:
            prefixes = self._prefixes_by_last_token.setdefault(word[-1], [])
            prefixes.append(list(word[:-1]))

    def feed(self, token: int) -> None:
        """Takes the next token of the completion.

        Raises:
            InvalidParameterError: the token is masked, so all tokens are.
        """
        if self._is_masked(token):
            raise InvalidParameterError(
                f"{', '.join(self._parameters)}: expected at least one token that may be "
                f"generated, but all tokens are masked at position {len(self._tokens)} of the "
                "completion; allow more tokens"
            )
        self._tokens.append(token)

    def _is_masked(self, token: int) -> bool:
        if self._allowed_tokens and token not in self._allowed_tokens:
            return True
        if len(self._tokens) < self._min_tokens and token in self._early_tokens:
            return True
        for prefix in self._prefixes_by_last_token.get(token, ()):
            if self._tokens[len(self._tokens) - len(prefix) :] == prefix:
                return True
        return False


def masked_token_check(sampling: Sampling, eos_token: int) -> MaskedTokenCheck | None:
    """Returns the check of a completion; None if its parameters mask no tokens."""
    for name in MASKING_PARAMETERS:
        if getattr(sampling, name):
            return MaskedTokenCheck(sampling, eos_token)
    return None


def _masking_parameters(sampling: Sampling) -> list[str]:
    """Returns the names of the parameters that mask tokens, for messages."""
    names = [name for name in MASKING_PARAMETERS if getattr(sampling, name)]
    if sampling.min_tokens:
        names.append("min_tokens")
    return names
