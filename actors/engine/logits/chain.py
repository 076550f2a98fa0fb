"""All logits processors in the order in which they are applied, which is that of vLLM."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float

from actors.engine.logits.allowed_tokens import AllowedTokens
from actors.engine.logits.bad_words import BadWords
from actors.engine.logits.logit_bias import LogitBias
from actors.engine.logits.occurrence_penalties import OccurrencePenalties
from actors.engine.logits.processor import DecodeView, LogitsProcessor, Rows
from actors.engine.logits.repetition_penalty import RepetitionPenalty
from actors.engine.logits.stop_tokens import StopTokens
from actors.protocol.sampling import PARAMETERS, Sampling

PROCESSORS: tuple[LogitsProcessor, ...] = (
    LogitBias(),
    RepetitionPenalty(),
    OccurrencePenalties(),
    AllowedTokens(),
    BadWords(),
    StopTokens(),
)


@dataclass(frozen=True, slots=True)
class LogitsChain:
    """The processors that decode is compiled with.

    Their arrays and their states are tuples with one entry per processor.
    """

    processors: tuple[LogitsProcessor, ...]

    def host_arrays(self, rows: Rows) -> tuple[Any, ...]:
        """Returns the host arrays for the rows of a call."""
        return tuple(processor.host_arrays(rows) for processor in self.processors)

    def start(self, arrays: tuple[Any, ...], view: DecodeView, columns: int) -> tuple[Any, ...]:
        """Returns the states before the first step of a call."""
        states = []
        for processor, own_arrays in zip(self.processors, arrays, strict=True):
            states.append(processor.start(own_arrays, view, columns))
        return tuple(states)

    def observe(self, states: tuple[Any, ...], view: DecodeView) -> tuple[Any, ...]:
        """Returns the states with the input tokens of the step."""
        observed = []
        for processor, state in zip(self.processors, states, strict=True):
            observed.append(processor.observe(state, view))
        return tuple(observed)

    def apply(
        self,
        logits: Float[Array, "B U"],
        arrays: tuple[Any, ...],
        states: tuple[Any, ...],
        view: DecodeView,
    ) -> Float[Array, "B U"]:
        """Returns the logits of the step after all processors."""
        for processor, own_arrays, state in zip(self.processors, arrays, states, strict=True):
            logits = processor.apply(logits, own_arrays, state, view)
        return logits


def chain_for(parameters: Collection[str]) -> LogitsChain:
    """Returns the chain for requests that set none but `parameters`."""
    return LogitsChain(
        tuple(
            processor
            for processor in PROCESSORS
            if not set(processor.parameters).isdisjoint(parameters)
        )
    )


def missing_parameter(chain: LogitsChain, sampling: Sampling) -> str | None:
    """Returns a parameter that `sampling` sets and no processor of `chain` implements."""
    for processor in PROCESSORS:
        if processor in chain.processors:
            continue
        for name in processor.parameters:
            if getattr(sampling, name) != PARAMETERS[name].default:
                return name
    return None
