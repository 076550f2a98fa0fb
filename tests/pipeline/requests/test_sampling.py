import math
from typing import Any

import pytest

from actors.protocol.errors import InvalidParameterError
from actors.protocol.parameters import Vocabulary
from actors.protocol.sampling import PARAMETERS, Sampling, SamplingParams
from pipeline.requests.sampling import effective_seed, resolve_sampling

DEFAULTS = SamplingParams(max_tokens=8)
TEXTS = {"yes": [5], " yes": [6], "no way": [7, 8], " no way": [9, 8], "é": [300]}
VOCABULARY = Vocabulary(64, lambda text: TEXTS.get(text, []))


def resolve(row: dict[str, object], defaults: SamplingParams = DEFAULTS) -> Sampling:
    return resolve_sampling(row, defaults, VOCABULARY)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": math.nan}, {"temperature": -1.0}, {"temperature": "warm"},
        {"max_tokens": -5}, {"max_tokens": 0}, {"max_tokens": 1.5}, {"max_tokens": True},
        {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}, {"n": 0}, {"n": 10**9}, {"seed": "x"},
        {"stop": [1]}, {"stop": ""}, {"stop": ["a", ""]}, {"stop": 5},
        {"min_tokens": 9}, {"ignore_eos": 1},
        {"min_p": -0.1}, {"min_p": 1.01}, {"min_p": "some"}, {"min_p": math.nan},
        {"repetition_penalty": 0}, {"repetition_penalty": -1.2}, {"repetition_penalty": math.inf},
        {"repetition_penalty": True}, {"repetition_max_pattern": -1},
        {"repetition_max_pattern": 1025}, {"repetition_max_pattern": 2.5},
        {"allowed_token_ids": ["a"]}, {"allowed_token_ids": [64]},
        {"logit_bias": {"no way": 1}}, {"logit_bias": {64: 1}}, {"logit_bias": {5: math.nan}},
        {"logit_bias": {" yes": 1, 6: 1}}, {"logit_bias": [5]}, {"logit_bias": {-1: 1}},
        {"bad_words": [""]}, {"bad_words": ["unknown"]}, {"bad_words": ["é"]},
        {"stop_token_ids": [64]}, {"stop_token_ids": ["a"]},
        {"repetition_min_count": 1}, {"repetition_min_count": 0},
    ],
)  # fmt: skip
def test_row_with_a_parameter_out_of_range_is_refused(values: dict[str, Any]) -> None:
    [name] = values
    with pytest.raises(InvalidParameterError, match=f"^{name}: expected .*, got"):
        resolve(values)


def test_row_without_max_tokens_needs_a_default() -> None:
    with pytest.raises(InvalidParameterError, match=r"max_tokens: .* give --max-tokens"):
        resolve({}, SamplingParams())
    with pytest.raises(InvalidParameterError, match=r"max_tokens: .* give --max-tokens"):
        resolve({"top_k": 3}, SamplingParams())
    assert resolve({"max_tokens": 3}, SamplingParams()) == Sampling(3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allowed_token_ids", (5, 6)),
        ("stop", ("x",)),
        ("stop_token_ids", (5,)),
        ("bad_words", ("yes",)),
        ("logit_bias", ((5, 1.0),)),
    ],
)
def test_empty_list_of_a_row_switches_off_the_default(name: str, value: Any) -> None:
    defaults = SamplingParams(max_tokens=8, **{name: value})
    assert getattr(resolve({}, defaults), name) != ()
    assert getattr(resolve({"top_k": 3}, defaults), name) != ()
    assert getattr(resolve({name: []}, defaults), name) == ()


def test_columns_override_defaults() -> None:
    columns: dict[str, object] = {
        "max_tokens": 4.0,
        "temperature": 1,
        "top_k": 7,
        "n": 3,
        "stop": "x",
        "seed": 11,
        "ignore_eos": True,
        "min_p": 0.25,
        "repetition_penalty": 2,
        "repetition_max_pattern": 5.0,
        "repetition_min_count": 3,
    }
    sampling = resolve(columns, SamplingParams(max_tokens=8, top_p=0.5, top_k=9))
    assert sampling == Sampling(
        max_tokens=4,
        temperature=1.0,
        top_p=0.5,
        top_k=7,
        n=3,
        stop=("x",),
        seed=11,
        ignore_eos=True,
        min_p=0.25,
        repetition_penalty=2.0,
        repetition_max_pattern=5,
        repetition_min_count=3,
    )


def test_columns_may_switch_off_what_the_run_sets() -> None:
    defaults = SamplingParams(max_tokens=8, min_p=0.1, repetition_max_pattern=9, stop=("a",))
    off: dict[str, object] = {"min_p": 0, "repetition_max_pattern": 0, "stop": []}
    assert resolve(off, defaults) == Sampling(8)
    assert resolve({}, defaults) == Sampling(8, min_p=0.1, repetition_max_pattern=9, stop=("a",))


def test_min_tokens_of_a_row_fit_its_own_max_tokens() -> None:
    defaults = SamplingParams(max_tokens=8, min_tokens=5)
    assert resolve({"max_tokens": 5}, defaults).max_tokens == 5
    with pytest.raises(InvalidParameterError, match="min_tokens: expected at most max_tokens = 4"):
        resolve({"max_tokens": 4}, defaults)


@pytest.mark.parametrize("name", PARAMETERS)
def test_null_in_a_column_leaves_the_default(name: str) -> None:
    assert resolve({name: None}) == resolve({})


def test_seeds_depend_on_run_row_and_sample() -> None:
    seeds: list[int] = []
    for run in (0, 1):
        for row_id in (7, "7", "8"):
            seeds += [effective_seed(run, row_id, sample) for sample in (0, 1)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # pinned: another value would change every sampled run
    assert effective_seed(0, "a", 0) == 7968013983557607248


@pytest.mark.parametrize(
    "value",
    [
        {"5": -200, " yes": 1, "yes_": None},
        [(" yes", 1.0), (5, -100.0)],
        [[" yes", 1], [5, -1e9]],
        '{"5": -100, " yes": 1}',
        {5: -100, 6: 1},
    ],
)
def test_logit_bias_comes_in_several_forms(value: object) -> None:
    assert resolve({"logit_bias": value}).logit_bias == ((5, -100.0), (6, 1.0))


def test_bad_words_are_tokens_with_and_without_a_space() -> None:
    sampling = resolve({"bad_words": [" no way", "yes"]})
    assert sampling.bad_words == ((7, 8), (9, 8), (5,), (6,))
