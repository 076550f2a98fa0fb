"""Ends a completion: every check that its sampling parameters set, in order of precedence.

A decode call may draw more tokens than a completion keeps; the checks see them one by one.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from actors.engine.stopping.repetition import RepetitionSearch
from actors.engine.stopping.stop_strings import StopSearch
from actors.protocol.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Finish:
    """Why a completion has ended."""

    reason: Literal["stop", "length", "repetition"]
    stop_reason: str | None = None
    text_bytes: int | None = None  # bytes of the text that are kept; None: all


class FinishCheck(ABC):
    """One way in which a completion ends."""

    @abstractmethod
    def feed(self, token: int, count: int) -> Finish | None:
        """Takes the next token, the `count`-th of the completion.

        Returns the finish if it is the last one.
        """


@dataclass(frozen=True, slots=True)
class EosCheck(FinishCheck):
    """Ends at the end-of-text token, which decode suppresses before min_tokens."""

    eos_token: int

    def feed(self, token: int, count: int) -> Finish | None:
        """Returns the finish at the end-of-text token."""
        if token == self.eos_token:
            return Finish("stop", "eos")
        return None


@dataclass(slots=True)
class StopTokenCheck(FinishCheck):
    """Ends at a stop token, which decode suppresses before min_tokens."""

    tokens: frozenset[int]
    token_bytes: Sequence[bytes]
    includes_stop: bool
    text_bytes: int = 0  # of the completion so far

    def feed(self, token: int, count: int) -> Finish | None:
        """Returns the finish at a stop token."""
        if token in self.tokens:
            kept_bytes = None if self.includes_stop else self.text_bytes
            return Finish("stop", str(token), kept_bytes)
        if self.token_bytes:
            self.text_bytes += len(self.token_bytes[token])
        return None


@dataclass(frozen=True, slots=True)
class LengthCheck(FinishCheck):
    """Ends at max_tokens."""

    max_tokens: int

    def feed(self, token: int, count: int) -> Finish | None:
        """Returns the finish at the last token that is allowed."""
        if count >= self.max_tokens:
            return Finish("length")
        return None


@dataclass(frozen=True, slots=True)
class StopStringCheck(FinishCheck):
    """Ends where a stop string is completed, after min_tokens."""

    search: StopSearch
    min_tokens: int
    includes_stop: bool

    def feed(self, token: int, count: int) -> Finish | None:
        """Returns the finish at the token that completes a stop string."""
        match = self.search.feed(token, armed=count > self.min_tokens)
        if match is None:
            return None
        kept_bytes = match.text_bytes
        if self.includes_stop:
            kept_bytes += len(match.stop.encode())
        return Finish("stop", match.stop, kept_bytes)


@dataclass(frozen=True, slots=True)
class RepetitionCheck(FinishCheck):
    """Ends where a pattern has been repeated often enough, from min_tokens on."""

    search: RepetitionSearch
    min_tokens: int

    def feed(self, token: int, count: int) -> Finish | None:
        """Returns the finish at the token that completes the last repetition."""
        if self.search.feed(token, armed=count >= self.min_tokens):
            return Finish("repetition")
        return None


@dataclass(frozen=True, slots=True)
class FinishChecks:
    """All checks of one completion; of several that end it at one token, the first counts."""

    checks: tuple[FinishCheck, ...]

    def feed(self, token: int, count: int) -> Finish | None:
        """Takes the next token, the `count`-th of the completion; returns the finish if any."""
        finish: Finish | None = None
        for check in self.checks:
            # every check sees every token
            own_finish = check.feed(token, count)
            if finish is None:
                finish = own_finish
        return finish


def finish_checks(sampling: Sampling, eos_token: int, token_bytes: Sequence[bytes]) -> FinishChecks:
    """Returns the checks for a completion.

    Args:
        sampling: its parameters.
        eos_token: the model's end-of-text token.
        token_bytes: bytes that each token decodes to; empty without a tokenizer.

    Raises:
        InvalidParameterError: a search cannot be made of the parameters.
    """
    checks: list[FinishCheck] = []
    includes_stop = sampling.include_stop_str_in_output
    stop_tokens = frozenset(sampling.stop_token_ids)
    if not sampling.ignore_eos:
        stop_tokens -= {eos_token}  # its stop reason is "eos"
    if stop_tokens:
        checks.append(StopTokenCheck(stop_tokens, token_bytes, includes_stop))
    if sampling.stop:
        search = StopSearch(sampling.stop, token_bytes)
        checks.append(StopStringCheck(search, sampling.min_tokens, includes_stop))
    if not sampling.ignore_eos:
        checks.append(EosCheck(eos_token))
    if sampling.repetition_max_pattern:
        repetition = RepetitionSearch(
            sampling.repetition_max_pattern, sampling.repetition_min_count
        )
        checks.append(RepetitionCheck(repetition, sampling.min_tokens))
    checks.append(LengthCheck(sampling.max_tokens))
    return FinishChecks(tuple(checks))
