"""Limits and defaults by which rows become requests, the same for the whole run."""

from dataclasses import dataclass, field
from typing import Literal

from actors.protocol.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class RequestRules:
    """Limits of the model and of the run, and the sampling of rows without columns of their own."""

    vocab_size: int  # of the model: ids at or above it are not valid
    max_len: int  # longest prompt + completion, tokens
    overflow: Literal["error", "truncate-left"] = "error"
    defaults: SamplingParams = field(default_factory=SamplingParams)
