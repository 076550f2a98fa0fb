"""The run's sampling parameters and a row's own columns → the row's `Sampling` and seeds."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from actors.protocol.errors import InvalidParameterError
from actors.protocol.parameters import ParameterError, Vocabulary
from actors.protocol.sampling import (
    PARAMETERS,
    Sampling,
    SamplingParams,
    check_combination,
    read_parameters,
    resolve_parameters,
)


def resolve_sampling(
    row: Mapping[str, object], defaults: SamplingParams, vocabulary: Vocabulary
) -> Sampling:
    """Returns the sampling of a row; its seed is that of the run, or of the row's column `seed`.

    Args:
        row: values of the row's own columns by parameter; null leaves the default.
        defaults: the parameters of the run.
        vocabulary: of the model, with the run's tokenizer.

    Raises:
        InvalidParameterError: a value has the wrong type or is out of range, or two contradict each
            other.
    """
    if not row:
        sampling: Sampling = _default_sampling(defaults, vocabulary)
        return sampling
    try:
        resolved: dict[str, Any] = _resolved_defaults(defaults, vocabulary)
        own = resolve_parameters(read_parameters(row), vocabulary)
        return _checked(resolved | own)
    except ParameterError as error:
        raise InvalidParameterError(str(error)) from error


@lru_cache(maxsize=1)
def _default_sampling(defaults: SamplingParams, vocabulary: Vocabulary) -> Sampling:
    """Returns the sampling of rows without columns of their own; resolved once per run."""
    try:
        return _checked(_resolved_defaults(defaults, vocabulary))
    except ParameterError as error:
        raise InvalidParameterError(str(error)) from error


@lru_cache(maxsize=1)
def _resolved_defaults(defaults: SamplingParams, vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns the values of the run's parameters by name; resolved once for all rows."""
    values = {name: getattr(defaults, name) for name in PARAMETERS}
    return resolve_parameters(values, vocabulary)


def _checked(resolved: dict[str, Any]) -> Sampling:
    if resolved["max_tokens"] is None:
        reason = "the row has none and the run sets no default; give --max-tokens"
        raise ParameterError("max_tokens", reason)
    sampling = Sampling(**resolved)
    check_combination(sampling)
    return sampling


def effective_seed(seed: int, row_id: str | int, sample: int) -> int:
    """Returns the seed of one sample, 0 <= seed < 2**63.

    It depends on nothing but its arguments: not on batch, replica, order or retry. The type of the
    id counts, so that the rows 7 and "7" of two data sets draw different samples.
    """
    address = f"{seed}\x00{type(row_id).__name__}\x00{row_id}\x00{sample}"
    digest = hashlib.blake2b(address.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big") >> 1
