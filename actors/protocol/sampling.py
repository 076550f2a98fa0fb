"""The sampling parameters, each declared once.

A field of `SamplingParams` is the declaration: name, default, kind with range, help. Flags and keys
of job files, columns of rows and their type check, validation, the fingerprint and the table in
docs/engine.md are derived from it. Standard library only: driver and replicas import it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from actors.protocol.parameters import (
    INT64_MAX,
    Boolean,
    Integer,
    Number,
    Parameter,
    ParameterError,
    ParameterKind,
    Texts,
    TokenBias,
    TokenIds,
    Vocabulary,
    Words,
)

# All samples of a row are open at once: a typing error must not fill the driver's memory.
MAX_SAMPLES = 4096
# Every generated token is compared with this many tokens before it.
MAX_PATTERN = 1024


def _parameter(
    default: Any,
    kind: ParameterKind,
    text: str,
    *,
    fingerprint: Literal["always", "if set"] = "if set",
) -> Any:
    """Returns the field of a parameter; `text` is the help of its flag."""
    metadata = {"help": text, "kind": kind, "fingerprint": fingerprint}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling parameters as flags and columns set them; the defaults are those of the flags."""

    max_tokens: int | None = _parameter(
        None,  # every row has its own
        Integer(1),
        "most tokens of a completion; required for generate unless a column max_tokens has it",
        fingerprint="always",
    )
    temperature: float = _parameter(0.0, Number(0, 1e6), "0 = greedy", fingerprint="always")
    top_p: float = _parameter(
        1.0,
        Number(0, 1, low_excluded=True),
        "nucleus: share of probability kept; 1 = off",
        fingerprint="always",
    )
    top_k: int = _parameter(0, Integer(0), "most likely tokens kept; 0 = off", fingerprint="always")
    min_p: float = _parameter(
        0.0,
        Number(0, 1),
        "keep tokens that are at least this share as likely as the most likely one, before top-k "
        "and top-p; 0 = off",
    )
    repetition_penalty: float = _parameter(
        1.0,
        Number(0.01, 100),  # logits stay finite, whatever they are
        "divide positive logits of tokens in the prompt or the completion by this number, multiply "
        "negative ones; 1 = off",
    )
    presence_penalty: float = _parameter(
        0.0,
        Number(-2, 2),
        "subtract this number from the logits of tokens in the completion; 0 = off",
    )
    frequency_penalty: float = _parameter(
        0.0,
        Number(-2, 2),
        "subtract this number from the logits of a token for each occurrence in the completion; "
        "0 = off",
    )
    allowed_token_ids: tuple[int, ...] = _parameter(
        (), TokenIds(), "generate only these tokens, given by id; an empty list = all tokens"
    )
    logit_bias: tuple[tuple[Any, float], ...] = _parameter(
        (),
        TokenBias(-100, 100),
        "add numbers from -100 to 100 to the logits of tokens, which are given by id or by text of "
        'one token: \'{"198": -100, " yes": 2}\'',
    )
    bad_words: tuple[Any, ...] = _parameter(
        (),
        Words(),
        "string that a completion must not contain, with or without a space before it; may be "
        "given several times",
    )
    seed: int = _parameter(
        0,
        Integer(-INT64_MAX - 1, INT64_MAX),
        "seed of the run; the seed of a sample follows from it, the row's id and the sample's "
        "index",
        fingerprint="always",
    )
    stop: tuple[str, ...] = _parameter(
        (),
        Texts(),
        "string that ends a completion; may be given several times",
        fingerprint="always",
    )
    stop_token_ids: tuple[int, ...] = _parameter(
        (), TokenIds(), "end a completion at these tokens, given by id; their text is left out"
    )
    include_stop_str_in_output: bool = _parameter(
        False, Boolean(), "keep the stop string, or the text of the stop token, in the text"
    )
    n: int = _parameter(1, Integer(1, MAX_SAMPLES), "samples per row", fingerprint="always")
    min_tokens: int = _parameter(
        0,
        Integer(0),
        "suppress end-of-text until this many tokens are generated",
        fingerprint="always",
    )
    ignore_eos: bool = _parameter(
        False, Boolean(), "continue after the end-of-text token", fingerprint="always"
    )
    repetition_max_pattern: int = _parameter(
        0,
        Integer(0, MAX_PATTERN),
        "end a completion (finish_reason repetition) when its last tokens are one pattern of at "
        "most this many tokens, repeated; 0 = off",
    )
    repetition_min_count: int = _parameter(
        8, Integer(2), "repetitions of the pattern that end a completion"
    )


@dataclass(frozen=True, slots=True)
class Sampling(SamplingParams):
    """Sampling parameters of one sample, resolved from the run's defaults and the row's columns.

    `seed` is the sample's own, 0 <= seed < 2**63.
    """

    max_tokens: int

    def seeded(self, seed: int) -> "Sampling":
        """Returns the same parameters with another seed.

        Every request of a run calls it, hence not through `dataclasses.replace`, which is slow.
        """
        copy = object.__new__(Sampling)
        for name in PARAMETERS:
            object.__setattr__(copy, name, getattr(self, name))
        object.__setattr__(copy, "seed", seed)
        return copy


def _declared() -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    for field in dataclasses.fields(SamplingParams):
        parameters[field.name] = Parameter(field.name, field.default, **field.metadata)
    return parameters


PARAMETERS: Mapping[str, Parameter] = MappingProxyType(_declared())


def read_parameters(values: Mapping[str, object]) -> dict[str, Any]:
    """Returns the values that are set, checked one by one; None leaves a parameter at its default.

    Raises:
        ParameterError: a value has the wrong type or is out of range.
    """
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if value is not None:
            checked[name] = PARAMETERS[name].read(value)
    return checked


def resolve_parameters(values: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns values that were read as the engine uses them: text as token ids.

    Raises:
        ParameterError: a token id is outside the vocabulary, or a text has no fitting tokens.
    """
    return {name: PARAMETERS[name].resolve(value, vocabulary) for name, value in values.items()}


def check_combination(params: SamplingParams) -> None:
    """Checks parameters against each other.

    Raises:
        ParameterError: they contradict each other.
    """
    if params.max_tokens is not None and params.min_tokens > params.max_tokens:
        reason = f"expected at most max_tokens = {params.max_tokens}, got {params.min_tokens}"
        raise ParameterError("min_tokens", reason)


def fingerprint_values(params: SamplingParams) -> dict[str, Any]:
    """Returns what the fingerprint of a run has of its sampling parameters, as JSON values."""
    values: dict[str, Any] = {}
    for name, parameter in PARAMETERS.items():
        value = getattr(params, name)
        if parameter.fingerprint == "always" or value != parameter.default:
            values[name] = _json_value(value)
    return values


def _json_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json_value(item) for item in value]
    return value
