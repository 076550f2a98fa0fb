"""The calls of one step, from their dispatch until the host has read their results.

Results are arrays of devices that run the calls meanwhile. Where the platform overlaps calls, the
engine dispatches the next step before it reads this one.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float

from actors.engine.generation import GenerationState
from actors.engine.scheduling.scheduler import DecodePlan, PrefillPlan
from actors.engine.scheduling.sequence import Sequence, Targets
from actors.engine.steps import DecodeOutput
from actors.engine.vocabulary import Likelihood


@dataclass(frozen=True, slots=True, eq=False)
class ScoredChunk:
    """Targets `index` of one row of a prefill call, at `positions` of the data shard's output."""

    targets: Targets
    index: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class PrefillInFlight:
    """A prefill call, and the score calls over its output."""

    began_s: float  # when the host began to plan it
    plan: PrefillPlan
    hidden: Float[Array, "B T D"]
    scored: list[list[ScoredChunk]]  # of each data shard
    scores: list[Likelihood]  # of each score call
    pooled: Float[Array, "B D"] | None  # None: no row is embedded
    ended: list[Sequence]  # with this call


@dataclass(frozen=True, slots=True, eq=False)
class DecodeInFlight:
    """A decode call."""

    began_s: float  # when the host began to plan it
    plan: DecodePlan
    rows: list[tuple[int, Sequence]]
    states: list[GenerationState]  # of each row
    output: DecodeOutput


@dataclass(frozen=True, slots=True, eq=False)
class StepInFlight:
    """The calls of one step."""

    prefill: PrefillInFlight | None
    decode: DecodeInFlight | None
