"""The completion of one request so far, and the rules that end it. No JAX."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from actors.engine.repetition import RepetitionSearch
from actors.engine.stops import StopMatch, StopSearch
from actors.protocol.messages import Completion, Request, logprobs, token_ids
from actors.protocol.sampling import Sampling


@dataclass(slots=True, eq=False)
class GenerationState:
    """Sampled tokens of one request with their log-probs; `append` finds the end."""

    request: Request
    sampling: Sampling
    eos_token: int
    # grok-1: one list of all tokens is shared by all slots, right for one slot only; here every
    # request has its own
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_ids: list[np.ndarray] = field(default_factory=list)  # K of each token
    top_logprobs: list[np.ndarray] = field(default_factory=list)
    stop_search: StopSearch | None = None
    stop_match: StopMatch | None = None
    repetition_search: RepetitionSearch | None = None
    repetition_found: bool = False  # the last token completed a repeated pattern

    @property
    def at_eos(self) -> bool:
        """Whether the last token ends the text."""
        return not self.sampling.ignore_eos and self.tokens[-1] == self.eos_token

    def append(
        self, token: int, logprob: float, top_ids: np.ndarray, top_logprobs: np.ndarray
    ) -> bool:
        """Adds a sampled token; returns whether it ends the completion.

        Args:
            token: the sampled id.
            logprob: its log-prob under the model's own distribution.
            top_ids: int32 [K], the most likely tokens at its position; K may be 0.
            top_logprobs: float32 [K].
        """
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if len(top_ids):
            self.top_ids.append(top_ids)
            self.top_logprobs.append(top_logprobs)

        count = len(self.tokens)
        if self.stop_search is not None:
            armed = count > self.sampling.min_tokens
            self.stop_match = self.stop_search.feed(token, armed=armed)
        if self.repetition_search is not None:
            armed = count >= self.sampling.min_tokens
            self.repetition_found = self.repetition_search.feed(token, armed=armed)

        stopped = self.stop_match is not None or self.repetition_found or self.at_eos
        return stopped or count >= self.sampling.max_tokens

    def completion(self, cached_tokens: int, top_k: int | None) -> Completion:
        """Returns the completion of the request.

        Args:
            cached_tokens: prompt tokens that were found in the cache.
            top_k: K most likely tokens to report beside each one; None: no log-probs.
        """
        match = self.stop_match
        top_ids = None
        top_logprobs = None
        if top_k:
            top_ids = token_ids(np.concatenate(self.top_ids).tolist())
            top_logprobs = logprobs(np.concatenate(self.top_logprobs).tolist())

        stop_reason = self._stop_reason()
        return Completion(
            ref=self.request.ref,
            token_ids=token_ids(self.tokens),
            text_bytes=match.text_bytes if match else None,
            finish_reason=self._finish_reason(stop_reason),
            stop_reason=stop_reason,
            prompt_tokens=len(self.request.prompt_ids),
            cached_tokens=cached_tokens,
            token_logprobs=None if top_k is None else logprobs(self.logprobs),
            top_token_ids=top_ids,
            top_logprobs=top_logprobs,
            seed=self.sampling.seed,
        )

    def _stop_reason(self) -> str | None:
        if self.stop_match is not None:
            return self.stop_match.stop
        return "eos" if self.at_eos else None

    def _finish_reason(self, stop_reason: str | None) -> Literal["stop", "repetition", "length"]:
        if stop_reason is not None:
            return "stop"
        return "repetition" if self.repetition_found else "length"


def start_generation(
    request: Request, sampling: Sampling, eos_token: int, token_bytes: Sequence[bytes]
) -> GenerationState:
    """Returns the state of a completion without tokens.

    `token_bytes` holds the bytes that each token id decodes to; only stop strings need it.
    """
    state = GenerationState(request, sampling, eos_token)
    if sampling.stop:
        state.stop_search = StopSearch(sampling.stop, token_bytes)
    if sampling.repetition_max_pattern:
        state.repetition_search = RepetitionSearch(
            sampling.repetition_max_pattern, sampling.repetition_min_count
        )
    return state
