import dataclasses
import json
import pickle
from pathlib import Path

import pytest

from actors.protocol.parameters import ParameterError
from actors.protocol.sampling import (
    PARAMETERS,
    Sampling,
    SamplingParams,
    check_combination,
    fingerprint_values,
    read_parameters,
)

ROOT = Path(__file__).parents[3]
# Parameters of the first version; their place in the fingerprint can never change.
FIRST_VERSION = {
    "max_tokens": None,
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "seed": 0,
    "stop": [],
    "n": 1,
    "min_tokens": 0,
    "ignore_eos": False,
}
NOT_DEFAULT = {
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.5,
    "repetition_penalty": 1.5,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "allowed_token_ids": (5, 6),
    "logit_bias": ((5, -1.5), (" ", 2.0)),
    "bad_words": ("a", "b c"),
    "seed": 5,
    "stop": ("a", "b"),
    "stop_token_ids": (5, 6),
    "include_stop_str_in_output": True,
    "n": 5,
    "min_tokens": 5,
    "ignore_eos": True,
    "repetition_max_pattern": 5,
    "repetition_min_count": 5,
}


def test_declarations_have_an_example_here() -> None:
    assert set(NOT_DEFAULT) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_example_is_read_as_it_is(name: str) -> None:
    value = PARAMETERS[name].read(NOT_DEFAULT[name])
    assert value == NOT_DEFAULT[name]
    assert type(value) is type(NOT_DEFAULT[name])


@pytest.mark.parametrize("name", PARAMETERS)
def test_declaration_has_help_and_a_readable_default(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter.help
    assert parameter.flag == "--" + name.replace("_", "-")
    if parameter.default not in (None, ()):
        assert parameter.read(parameter.default) == parameter.default


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_changes_the_fingerprint(name: str) -> None:
    values = fingerprint_values(SamplingParams(**{name: NOT_DEFAULT[name]}))
    assert values != fingerprint_values(SamplingParams())


def test_fingerprint_of_defaults_is_that_of_the_first_version() -> None:
    values = fingerprint_values(SamplingParams())
    assert values == FIRST_VERSION


def test_fingerprint_holds_json_values() -> None:
    values = fingerprint_values(SamplingParams(**NOT_DEFAULT))
    assert values["stop"] == ["a", "b"]
    assert set(values) == set(PARAMETERS)


def test_read_parameters_skips_what_is_not_set() -> None:
    assert read_parameters({"top_k": None, "top_p": 1}) == {"top_p": 1.0}
    with pytest.raises(ParameterError, match="top_k: expected an integer of at least 0, got 'x'"):
        read_parameters({"top_k": "x"})


def documented(name: str) -> str:
    parameter = PARAMETERS[name]
    default = json.dumps(parameter.default)
    return f"| `{parameter.flag}` | `{default}` | {parameter.kind.expected} | {parameter.help} |"


def test_documentation_lists_the_declared_parameters() -> None:
    """In the order of the declarations; the table of docs/engine.md is copied from here."""
    expected = [documented(name) for name in PARAMETERS]
    text = (ROOT / "docs" / "engine.md").read_text()
    table = text.split("| flag and column | default | values | meaning |\n|---|---|---|---|\n")[1]
    assert table.split("\n\n")[0].splitlines() == expected


def test_error_names_flag_or_column() -> None:
    with pytest.raises(ParameterError) as caught:
        read_parameters({"max_tokens": 0})
    assert str(caught.value) == "max_tokens: expected an integer of at least 1, got 0"
    assert caught.value.flag_message == "--" + str(caught.value).replace("_", "-", 1)


def test_min_tokens_above_max_tokens_are_refused() -> None:
    check_combination(SamplingParams(max_tokens=5, min_tokens=5))
    check_combination(SamplingParams(min_tokens=5))
    with pytest.raises(ParameterError, match="min_tokens: expected at most max_tokens = 5, got 6"):
        check_combination(SamplingParams(max_tokens=5, min_tokens=6))


def test_seeded_changes_the_seed_alone() -> None:
    sampling = Sampling(**NOT_DEFAULT)
    assert sampling.seeded(9) == dataclasses.replace(sampling, seed=9)
    assert sampling.seed == NOT_DEFAULT["seed"]
    assert pickle.loads(pickle.dumps(sampling.seeded(9))) == sampling.seeded(9)
