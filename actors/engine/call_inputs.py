"""Plans of the scheduler → the host arrays of one call.

Rows of a call: those of the first data shard, then those of the next one, `plan.rows` of each.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Items
from typing import Any, TypeVar

import numpy as np

from actors.engine.generation import GenerationState
from actors.engine.sampling import SamplingArrays
from actors.engine.scheduling.scheduler import DecodePlan, PrefillPlan
from actors.engine.scheduling.sequence import Sequence
from actors.engine.steps import IN_CACHE, DecodeInput, EngineContext
from actors.model.language_model import Step
from actors.protocol.sampling import Sampling

Item = TypeVar("Item")


def call_rows_of(data_shards: list[list[Item]], rows: int) -> Iterator[tuple[int, Item]]:
    """Yields (row of the call, item) for the items of all data shards, `rows` rows each."""
    for number, items in enumerate(data_shards):
        first = number * rows
        yield from enumerate(items, start=first)


def prefill_input(plan: PrefillPlan, chunk_tokens: int) -> Step:
    """Returns the input of a prefill call; rows that are not in use have `count` 0."""
    rows = len(plan.data_shards) * plan.rows
    tokens = np.zeros((rows, chunk_tokens), np.int32)
    start = np.zeros(rows, np.int32)
    count = np.zeros(rows, np.int32)
    pages = np.zeros((rows, plan.width), np.int32)
    for row, chunk in call_rows_of(plan.data_shards, plan.rows):
        start[row] = chunk.start
        count[row] = chunk.count
        tokens[row, : chunk.count] = chunk.sequence.tokens[chunk.start : chunk.end]
        _fill_page_table(pages[row], chunk.sequence)
    return Step(tokens=tokens, start=start, count=count, pages=pages)  # type: ignore[arg-type]


def decode_input(
    plan: DecodePlan, states: Items[GenerationState], context: EngineContext
) -> DecodeInput:
    """Returns the input of a decode call; rows that are not in use have `left` 0.

    Args:
        plan: the sequences of the call.
        states: what each sequence of the plan has generated, in the order of the plan.
        context: the engine's model and sizes.
    """
    rows = len(plan.data_shards) * plan.rows
    tokens = np.zeros(rows, np.int32)
    start = np.zeros(rows, np.int32)
    left = np.zeros(rows, np.int32)
    stops_at_eos = np.zeros(rows, np.bool_)
    position = np.zeros(rows, np.int32)
    pages = np.zeros((rows, plan.width), np.int32)
    state_of_row: dict[int, GenerationState] = {}
    sequences = call_rows_of(plan.data_shards, plan.rows)
    for (row, sequence), state in zip(sequences, states, strict=True):
        tokens[row] = _first_input(sequence, state)
        start[row] = sequence.computed
        left[row] = sequence.longest - sequence.computed
        stops_at_eos[row] = not state.sampling.ignore_eos
        _fill_page_table(pages[row], sequence)
        position[row] = sequence.generated
        state_of_row[row] = state

    return DecodeInput(
        tokens=tokens,  # type: ignore[arg-type]
        start=start,  # type: ignore[arg-type]
        left=left,  # type: ignore[arg-type]
        stops_at_eos=stops_at_eos,  # type: ignore[arg-type]
        pages=pages,  # type: ignore[arg-type]
        sampling=sampling_arrays(state_of_row, position, context),
        processors=processor_arrays(state_of_row, rows, context),
    )


def _first_input(sequence: Sequence, state: GenerationState) -> int:
    """Returns the token that follows those in the cache."""
    if sequence.generated > len(state.tokens):
        return IN_CACHE  # the call in flight samples it
    if state.tokens:
        return state.tokens[-1]
    return int(sequence.tokens[-1])


def processor_arrays(
    state_of_row: dict[int, GenerationState], rows: int, context: EngineContext
) -> tuple[Any, ...]:
    """Returns the arrays of the logits processors for the rows of a decode call."""
    sampling_of_row: list[Sampling | None] = [None] * rows
    for row, state in state_of_row.items():
        sampling_of_row[row] = state.sampling
    return context.logits_chain.host_arrays(sampling_of_row)


def sampling_arrays(
    state_of_row: dict[int, GenerationState], position: np.ndarray, context: EngineContext
) -> SamplingArrays:
    """Returns the sampling parameters of the rows of a decode call; other rows are greedy.

    `position` holds the tokens that each row has generated: int32 [B].
    """
    rows = len(position)
    temperature = np.zeros(rows, np.float32)
    top_p = np.ones(rows, np.float32)
    top_k = np.zeros(rows, np.int32)
    min_p = np.zeros(rows, np.float32)
    seed = np.zeros((rows, 2), np.uint32)
    eos_from = np.zeros(rows, np.int32)
    for row, state in state_of_row.items():
        sampling = state.sampling
        temperature[row] = sampling.temperature
        top_p[row] = sampling.top_p
        top_k[row] = min(sampling.top_k, context.model.vocab_size)
        min_p[row] = sampling.min_p
        seed[row] = sampling.seed >> 32, sampling.seed & 0xFFFFFFFF
        eos_from[row] = 0 if sampling.ignore_eos else sampling.min_tokens
    return SamplingArrays(
        temperature=temperature,  # type: ignore[arg-type]
        top_p=top_p,  # type: ignore[arg-type]
        top_k=top_k,  # type: ignore[arg-type]
        min_p=min_p,  # type: ignore[arg-type]
        seed=seed,  # type: ignore[arg-type]
        position=position,  # type: ignore[arg-type]
        eos_from=eos_from,  # type: ignore[arg-type]
    )


def _fill_page_table(table_row: np.ndarray, sequence: Sequence) -> None:
    pages = sequence.pages[: len(table_row)]
    table_row[: len(pages)] = pages
