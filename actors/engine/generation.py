"""The completion of one request so far, and what ends it. No JAX."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from actors.engine.stopping.finish import Finish, FinishChecks, finish_checks
from actors.engine.stopping.masked_tokens import MaskedTokenCheck, masked_token_check
from actors.protocol.errors import InvalidParameterError
from actors.protocol.messages import Completion, Request, logprobs, token_ids
from actors.protocol.sampling import Sampling


@dataclass(slots=True, eq=False)
class GenerationState:
    """Sampled tokens of one request with their log-probs; `append` finds the end."""

    request: Request
    sampling: Sampling
    checks: FinishChecks  # what ends it
    masked_tokens: MaskedTokenCheck | None = None  # None: its parameters mask no tokens
    # grok-1: one list of all tokens is shared by all slots, right for one slot only; here every
    # request has its own
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_ids: list[np.ndarray] = field(default_factory=list)  # K of each token
    top_logprobs: list[np.ndarray] = field(default_factory=list)
    finish: Finish | None = None  # None: the completion goes on
    error: InvalidParameterError | None = None  # the reason why it cannot go on

    @property
    def has_ended(self) -> bool:
        """Whether no token is added any more."""
        return self.finish is not None or self.error is not None

    def append(
        self, token: int, logprob: float, top_ids: np.ndarray, top_logprobs: np.ndarray
    ) -> bool:
        """Adds a sampled token; returns whether it ends the completion.

        If the parameters of the request mask all tokens, the completion ends with an error.

        Args:
            token: the sampled id.
            logprob: its log-prob under the model's own distribution.
            top_ids: int32 [K], the most likely tokens at its position; K may be 0.
            top_logprobs: float32 [K].
        """
        if self.masked_tokens is not None:
            try:
                self.masked_tokens.feed(token)
            except InvalidParameterError as error:
                self.error = error
                return True

        self.tokens.append(token)
        self.logprobs.append(logprob)
        if len(top_ids):
            self.top_ids.append(top_ids)
            self.top_logprobs.append(top_logprobs)

        self.finish = self.checks.feed(token, len(self.tokens))
        return self.finish is not None

    def completion(self, cached_tokens: int, top_k: int | None) -> Completion:
        """Returns the completion of the request.

        Args:
            cached_tokens: prompt tokens that were found in the cache.
            top_k: K most likely tokens to report beside each one; None: no log-probs.
        """
        if self.error is not None:
            return Completion.failed(self.request.ref, self.error.code, str(self.error))
        if self.finish is None:
            raise ValueError(f"the completion of {self.request.ref} has not ended")
        top_ids = None
        top_logprobs = None
        if top_k:
            top_ids = token_ids(np.concatenate(self.top_ids).tolist())
            top_logprobs = logprobs(np.concatenate(self.top_logprobs).tolist())

        return Completion(
            ref=self.request.ref,
            token_ids=token_ids(self.tokens),
            text_bytes=self.finish.text_bytes,
            finish_reason=self.finish.reason,
            stop_reason=self.finish.stop_reason,
            prompt_tokens=len(self.request.prompt_ids),
            cached_tokens=cached_tokens,
            token_logprobs=None if top_k is None else logprobs(self.logprobs),
            top_token_ids=top_ids,
            top_logprobs=top_logprobs,
            seed=self.sampling.seed,
        )


def start_generation(
    request: Request, sampling: Sampling, eos_token: int, token_bytes: Sequence[bytes]
) -> GenerationState:
    """Returns the state of a completion without tokens.

    `token_bytes` holds the bytes that each token id decodes to; only stop strings need it.
    """
    checks = finish_checks(sampling, eos_token, token_bytes)
    return GenerationState(request, sampling, checks, masked_token_check(sampling, eos_token))
