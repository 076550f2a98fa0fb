"""call_inputs.py: the arrays of a call, row by row."""

import jax.numpy as jnp
import numpy as np
import pytest

from actors.engine.call_inputs import decode_input, prefill_input
from actors.engine.config import EngineConfig
from actors.engine.generation import GenerationState, start_generation
from actors.engine.scheduling.scheduler import DecodePlan, PrefillChunk, PrefillPlan
from actors.engine.scheduling.sequence import Sequence, no_targets
from actors.engine.steps import EngineContext
from actors.model.sharding import make_mesh
from tests.actors.engine.engines import generate, model_config


def context(**sizes: object) -> EngineContext:
    config = EngineConfig(max_len=64, **sizes)  # type: ignore[arg-type]
    return EngineContext(model_config("mha"), config, jnp.dtype("float32"), make_mesh(1, 1))


def generating(
    row: int, prompt: list[int], pages: list[int], **sampling: object
) -> tuple[Sequence, GenerationState]:
    request = generate(row, prompt, 9, **sampling)
    assert request.sampling is not None
    sequence = Sequence(
        request,
        np.asarray(prompt, np.int32),
        prefill_length=len(prompt) - 1,
        targets=no_targets(),
        max_new_tokens=9,
        pages=pages,
        computed=len(prompt) - 1,
    )
    return sequence, start_generation(request, request.sampling, 2, ())


def test_prefill_input_pads_rows_and_page_tables() -> None:
    first, _ = generating(0, [5, 6, 7, 8, 9], [3, 4])
    second, _ = generating(1, [11, 12], [6, 7, 8])
    plan = PrefillPlan(
        [[PrefillChunk(first, 0, 3), PrefillChunk(first, 3, 1)], [PrefillChunk(second, 0, 1)]],
        rows=3,
        width=2,
    )
    step = prefill_input(plan, chunk_tokens=3)
    assert np.asarray(step.tokens).tolist() == [
        [5, 6, 7],
        [8, 0, 0],
        [0, 0, 0],
        [11, 0, 0],
        [0, 0, 0],
        [0, 0, 0],
    ]
    assert np.asarray(step.start).tolist() == [0, 3, 0, 0, 0, 0]
    assert np.asarray(step.count).tolist() == [3, 1, 0, 1, 0, 0]
    assert np.asarray(step.pages)[[0, 1, 3]].tolist() == [[3, 4], [3, 4], [6, 7]]


def test_decode_input_continues_prompts_and_completions() -> None:
    first, first_state = generating(0, [5, 6, 7], [3])
    second, second_state = generating(1, [11, 12], [6, 7])
    nothing = np.zeros(0, np.int32)
    second_state.append(40, -1.0, nothing, nothing)
    second.computed += 1
    plan = DecodePlan([[first], [second]], rows=2, width=2)
    arrays = decode_input(plan, [first_state, second_state], context())
    assert np.asarray(arrays.tokens).tolist() == [7, 0, 40, 0]
    assert np.asarray(arrays.start).tolist() == [2, 0, 2, 0]
    assert np.asarray(arrays.left).tolist() == [9, 0, 8, 0]
    assert np.asarray(arrays.stops_at_eos).tolist() == [True, False, True, False]
    assert np.asarray(arrays.pages).tolist() == [[3, 0], [0, 0], [6, 7], [0, 0]]
    assert np.asarray(arrays.sampling.position).tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("ignore_eos", "min_tokens", "eos_from"), [(False, 4, 4), (False, 0, 0), (True, 4, 0)]
)
def test_decode_input_suppresses_eos_before_min_tokens(
    ignore_eos: bool, min_tokens: int, eos_from: int
) -> None:
    """With ignore_eos, end-of-text is an ordinary token from the first position on."""
    sequence, state = generating(0, [5, 6], [1], ignore_eos=ignore_eos, min_tokens=min_tokens)
    arrays = decode_input(DecodePlan([[sequence]], rows=1, width=1), [state], context())
    assert np.asarray(arrays.sampling.eos_from).tolist() == [eos_from]
    assert np.asarray(arrays.stops_at_eos).tolist() == [not ignore_eos]
