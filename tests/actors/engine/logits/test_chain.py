"""Every logits processor alone and together, beside rows without it, against plain loops."""

from typing import Any

import numpy as np
import pytest

from actors.engine.logits.chain import PROCESSORS, chain_for, missing_parameter
from actors.protocol.sampling import PARAMETERS, Sampling
from tests.actors.engine.logits.harness import VOCABULARY, Row, process
from tests.sampling_reference import HIDDEN, processed

# Parameters of the rows of a call; a processor has to change some of them and leave the others.
CASES: dict[str, list[Any]] = {
    "repetition_penalty": [1.3, 1.0, 0.7, 5.0],
    "presence_penalty": [0.7, 0.0, -2.0, 1.5],
    "allowed_token_ids": [(5, 63, 8), (), (0,), tuple(range(20, 50))],
    "logit_bias": [((5, 1.5), (63, -100.0)), (), ((0, 100.0),), ((8, -0.5), (41, 2.0))],
    # of the rows' completions: the next token of a word, a word that has begun, none, and one that
    # is longer than the completion
    "bad_words": [
        ((8, 63, 1), (8, 63, 2), (7,)),
        ((30, 31), (7, 30, 5, 6)),
        (),
        ((8,) * 9, (8, 8, 8, 8, 60), (8, 8, 8, 8, 8, 61)),
    ],
    "stop_token_ids": [(5, 63), (), (0,), (1, 2)],
    "frequency_penalty": [0.4, 0.0, -1.0, 2.0],
}
PROMPTS = [[3, 5, 5, 60, 0], [7], [9, 9, 9], [1, 2, 3, 4, 5, 6, 7, 8]]
GENERATED = [[5, 8, 8, 63], [7, 7, 0, 7, 30], [11, 12, 13], [40, 41, 8, 8, 8, 8]]


def rows_with(*names: str) -> list[Row]:
    rows = []
    for number, (prompt, generated) in enumerate(zip(PROMPTS, GENERATED, strict=True)):
        values = {name: CASES[name][number] for name in names}
        # the first two rows are one token too short to end, the others just long enough
        if values.get("stop_token_ids"):
            values["min_tokens"] = len(generated) + (number < 2)
        rows.append(Row(Sampling(9, **values), prompt, generated))
    return rows


def logits_of_rows(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (len(PROMPTS), VOCABULARY)).astype(np.float32)


def compare(rows: list[Row], logits: np.ndarray, found: np.ndarray) -> None:
    for row, before, after in zip(rows, logits, found, strict=True):
        expected = processed(before, row.sampling, row.prompt, row.generated)
        is_hidden = expected <= HIDDEN / 2
        np.testing.assert_array_equal(after <= HIDDEN / 2, is_hidden)
        np.testing.assert_allclose(after[~is_hidden], expected[~is_hidden], rtol=1e-5, atol=1e-5)


def test_processed_parameters_have_a_case() -> None:
    names = {name for processor in PROCESSORS for name in processor.parameters}
    assert names == set(CASES)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("shards", "steps"), [(1, 0), (8, 0), (8, 3)])
def test_processor_equals_plain_loops(name: str, shards: int, steps: int) -> None:
    rows = rows_with(name)
    logits = logits_of_rows(1)
    found = process(chain_for([name]), rows, logits, shards=shards, steps=steps)
    compare(rows, logits, found)
    assert (found != logits).any()


@pytest.mark.parametrize("steps", [0, 2])
def test_processors_apply_in_the_declared_order(steps: int) -> None:
    rows = rows_with(*CASES)
    logits = logits_of_rows(2)
    compare(rows, logits, process(chain_for(CASES), rows, logits, shards=8, steps=steps))


@pytest.mark.parametrize("name", CASES)
def test_row_without_a_parameter_keeps_every_bit(name: str) -> None:
    rows = rows_with(name)
    free = [row.sampling == Sampling(9) for row in rows]
    assert any(free)
    logits = logits_of_rows(3)
    found = process(chain_for([name]), rows, logits, shards=8)
    np.testing.assert_array_equal(found[free], logits[free])


@pytest.mark.parametrize("name", CASES)
def test_chain_without_a_processor_lacks_its_parameter(name: str) -> None:
    used = Sampling(9, **{name: CASES[name][0]})
    assert missing_parameter(chain_for([]), used) == name
    assert missing_parameter(chain_for([name]), used) is None
    assert missing_parameter(chain_for([]), Sampling(9)) is None
    assert chain_for([]).host_arrays([None]) == ()
    assert chain_for(["temperature", "seed"]) == chain_for([])
    assert PARAMETERS[name].default != CASES[name][0]
